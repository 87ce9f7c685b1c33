// An STL-heavy file for the compiler to read: many containers of many types.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Tag {
    int value = N;
    bool operator<(const Tag &other) const { return value < other.value; }
    bool operator==(const Tag &other) const { return value == other.value; }
};

template <int N> struct Work {
    using Inner = std::map<std::string, std::vector<std::tuple<int, double, Tag<N>>>>;
    using Outer = std::map<Tag<N>, std::pair<std::optional<Inner>, std::variant<int, std::string, Inner>>>;
    Outer outer;
    std::function<std::shared_ptr<Inner>(const Outer &)> make;

    int run() {
        Inner inner;
        inner["one"].emplace_back(1, 2.0, Tag<N>{});
        outer[Tag<N>{}] = {inner, std::string("two")};
        make = [](const Outer &from) {
            auto result = std::make_shared<Inner>();
            for (const auto &[key, value] : from)
                if (value.first)
                    result->insert(value.first->begin(), value.first->end());
            return result;
        };
        auto made = make(outer);
        std::vector<int> sizes;
        std::transform(made->begin(), made->end(), std::back_inserter(sizes),
                       [](const auto &entry) { return static_cast<int>(entry.second.size()); });
        std::sort(sizes.begin(), sizes.end(), std::greater<>{});
        return std::accumulate(sizes.begin(), sizes.end(), Work<N - 1>{}.run());
    }
};

template <> struct Work<0> {
    int run() { return 0; }
};

#ifndef DEPTH
#define DEPTH 2
#endif

int main() {
    return Work<DEPTH>{}.run();
}
