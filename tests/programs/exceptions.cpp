// Exceptions thrown through frames that allocate, caught at many depths, with
// destructors that allocate on the way: the stack shrinks by leaps.
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Noisy {
    std::string text;
    ~Noisy() {
        std::string last(40 + text.size() % 7, 'x');
        asm volatile("" : : "r"(last.data()) : "memory");
    }
};

__attribute__((noinline)) static int descend(int depth, unsigned &dice) {
    Noisy noisy{std::string(20 + static_cast<size_t>(depth) % 50, 'y')};
    dice = dice * 1103515245u + 12345u;
    if (depth == 0)
        throw std::runtime_error("bottom " + std::to_string(dice % 100));
    std::vector<int> some(dice >> 16 & 31, depth);
    if ((dice >> 20 & 7) == 0) {
        try {
            return descend(depth - 1, dice);
        } catch (const std::runtime_error &error) {
            auto kept = std::make_unique<std::string>(error.what());
            if (dice >> 24 & 1)
                throw;
            return static_cast<int>(kept->size() + some.size());
        }
    }
    return descend(depth - 1, dice) + static_cast<int>(some.size());
}

int main() {
    unsigned dice = 7;
    long sum = 0;
    for (int i = 0; i < 3000; i++) {
        try {
            sum += descend(i % 40, dice);
        } catch (const std::exception &error) {
            sum += error.what()[7];
        }
    }
    std::printf("%ld\n", sum);
}
