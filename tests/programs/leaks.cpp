// C++ owners: containers, arrays with destructors, a second base, all kept or all lost.
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#define APART __attribute__((noinline, noclone))

struct First { virtual ~First() = default; long a = 1; };
struct Second { virtual ~Second() = default; long b = 2; };
struct Both : First, Second { long c = 3; };
struct Counted { ~Counted() { sum++; } static int sum; long value = 7; };
int Counted::sum;

std::vector<std::unique_ptr<int>> *numbers;
std::map<int, std::string> *names;
Counted *counted;
Second *second;
First *first;
int *begin_of;

APART static std::vector<std::unique_ptr<int>> *make_vector() { return new std::vector<std::unique_ptr<int>>; }
APART static void fill_vector(std::vector<std::unique_ptr<int>> &of) { of.reserve(10); }
APART static std::unique_ptr<int> make_number() { return std::unique_ptr<int>(new int(5)); }
APART static Counted *make_counted() { return new Counted[10]; }
APART static Both *make_second() { return new Both; }
APART static Both *make_first() { return new Both; }
APART static int *make_ints() { return new int[25]; }
APART static std::map<int, std::string> *make_map() { return new std::map<int, std::string>; }

APART static void fill()
{
    numbers = make_vector();
    fill_vector(*numbers);
    for (int i = 0; i < 10; i++)
        numbers->push_back(make_number());
    names = make_map();
    for (int i = 0; i < 6; i++)
        (*names)[i] = std::string(100 + i, 'x');
    counted = make_counted();   // points 8 bytes into its block
    second = make_second();     // points to its second base
    first = make_first();
    begin_of = make_ints();
}

APART static void wipe()
{
    volatile char room[8192];
    std::memset(const_cast<char *>(room), 0, sizeof room);
}

int main(int argc, char **)
{
    fill();
    wipe();
    if (argc > 1) {
        numbers = nullptr;
        names = nullptr;
        counted = nullptr;
        second = nullptr;
        first = nullptr;
        begin_of = nullptr;
    }
    std::puts("planted");
    return 0;
}
