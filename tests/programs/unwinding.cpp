// As backtrace.c, for C++: allocations while an exception is on its way, in
// handlers, after it, in a lambda below std::function and std::sort, in a thread.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

static void *kept[16];

[[gnu::noinline]] static void keep(int index) {
    kept[index] = ::operator new(1000003 + 30 * static_cast<size_t>(index));
    asm volatile("" : : "r"(kept) : "memory");
}

struct Guard {
    int index;
    // Runs between the throw and the handler, below the unwinder's own frames.
    ~Guard() { keep(index); }
};

struct Error : std::runtime_error {
    explicit Error(int index) : std::runtime_error("error") { keep(index); }
};

[[gnu::noinline]] static int thrower(int depth) {
    if (depth == 0)
        throw Error(0);
    return thrower(depth - 1) + depth;
}

[[gnu::noinline]] static int guarded(int index) {
    Guard guard{index};
    return thrower(5) + 1;
}

[[gnu::noinline]] static int caught() {
    try {
        return guarded(1);
    } catch (const Error &) {
        keep(2);
        return 2;
    }
}

[[gnu::noinline]] static int thrown_again() {
    try {
        try {
            return thrower(2);
        } catch (const Error &) {
            Guard guard{3};
            throw;
        }
    } catch (const std::exception &) {
        keep(4);
    }
    return 4;
}

int main() {
    int sum = caught() + thrown_again();
    keep(5);
    std::function<void(int)> call = [](int index) { keep(index); };
    call(6);
    std::vector<int> numbers;
    for (int i = 0; i < 100; i++)
        numbers.push_back(i * 37 % 100);
    std::sort(numbers.begin(), numbers.end(), [](int a, int b) {
        if (a + b == 80 && !kept[7])
            keep(7);
        return a < b;
    });
    std::thread([] { keep(8); }).join();
    std::printf("%d\n", sum);
}
