// Eight threads: blocks freed by another thread than made them, containers,
// exceptions, thread_local objects that free after the thread's last statement.
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {
std::mutex lock;
std::vector<std::unique_ptr<std::string>> handed_over;
char *kept[8];

struct Late {
    std::vector<int> *numbers = new std::vector<int>(100, 1);
    std::string text = std::string(200, 'x');
    ~Late() {
        std::string again = text + "after the thread's last statement";
        delete numbers;
    }
};
thread_local Late late;

__attribute__((noinline)) char *leak_in_thread(int size) {
    return new char[size]; // site: leak_in_thread
}

__attribute__((noinline)) void fail(int i) {
    throw std::runtime_error("planned failure with a long text, number " + std::to_string(i));
}

unsigned long work(int id) {
    unsigned long sum = late.numbers->size();
    std::map<std::string, std::vector<int>> table;
    for (int i = 0; i < 2000; i++) {
        auto &row = table["key number " + std::to_string(i % 100)];
        row.push_back(i);
        if (i % 10 == 0) {
            try {
                fail(i);
            } catch (const std::exception &error) {
                sum += std::string(error.what()).size();
            }
        }
        auto text = std::make_unique<std::string>(50 + i % 200, 'a');
        std::unique_ptr<std::string> taken;
        {
            std::lock_guard<std::mutex> guard(lock);
            handed_over.push_back(std::move(text));
            if (handed_over.size() > 64) {
                taken = std::move(handed_over.front());
                handed_over.erase(handed_over.begin());
            }
        }
    }
    for (auto &row : table)
        sum += row.second.size();
    struct alignas(256) Wide { char bytes[256]; };
    auto wide = std::make_unique<Wide>();
    sum += reinterpret_cast<unsigned long>(wide.get()) % 256;
    kept[id] = leak_in_thread(128);
    return sum;
}
} // namespace

int main() {
    unsigned long sums[8];
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
        threads.emplace_back([i, &sums] { sums[i] = work(i); });
    for (auto &thread : threads)
        thread.join();
    handed_over.clear();
    unsigned long sum = 0;
    for (auto one : sums)
        sum += one;
    try {
        volatile std::size_t huge = static_cast<std::size_t>(-1) / 2 - 64;
        char *never = new char[huge];
        std::printf("impossible %p\n", static_cast<void *>(never));
    } catch (const std::bad_alloc &) {
        std::printf("bad_alloc caught\n");
    }
    volatile std::size_t huge = static_cast<std::size_t>(-1) / 2 - 64;
    std::printf("nothrow: %s\n", new (std::nothrow) char[huge] ? "a block" : "null");
    std::printf("threads: %lu\n", sum);
    return 0;
}
