/* Allocations of sizes nobody else asks for (1000003, 1000033, ...), each from
   another kind of stack; a debugger stops at them and tells its own view. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

static void *volatile kept[16];
static volatile int raised;

NOINLINE static void keep(int index) {
    kept[index] = malloc(1000003 + 30 * (size_t)index);
    memset(kept[index], index, 16);
}

NOINLINE static int plain(int depth, int index) {
    if (depth == 0)
        keep(index);
    else
        plain(depth - 1, index);
    return depth + index; /* no tail call */
}

NOINLINE static int wide(int index) {
    volatile char room[5000];
    room[index] = 1;
    int sum = plain(3, index);
    return sum + room[index];
}

NOINLINE static int dynamic(int bytes, int index) {
    volatile char room[bytes];
    room[bytes - 1] = 2;
    int sum = wide(index);
    return sum + room[bytes - 1];
}

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    if (x + y == 16 && !kept[3])
        plain(1, 3);
    return x < y ? -1 : x > y;
}

static int never_equal(const void *a, const void *b) {
    if (!kept[4])
        wide(4);
    return *(const int *)a - *(const int *)b;
}

static void handler(int signal) {
    raised = signal;
    plain(2, 5);
}

NOINLINE static int interrupted(int rounds) {
    volatile int sum = 0;
    for (int i = 0; i < rounds; i++)
        sum += i;
    raise(SIGUSR1);
    return sum + raised;
}

static jmp_buf back;

NOINLINE static int leap(int depth) {
    volatile char room[200];
    room[depth] = 1;
    if (depth == 0)
        longjmp(back, 1);
    return leap(depth - 1) + room[depth];
}

static void at_exit(void) {
    plain(1, 7);
}

int main(void) {
    int numbers[64], wanted = 7;
    for (int i = 0; i < 64; i++)
        numbers[i] = i * 37 % 64;
    atexit(at_exit);
    signal(SIGUSR1, handler);
    int sum = plain(0, 0) + plain(20, 1) + dynamic(333, 2);
    qsort(numbers, 64, sizeof numbers[0], compare);
    sum += bsearch(&wanted, numbers, 64, sizeof numbers[0], never_equal) != NULL;
    sum += interrupted(10);
    if (setjmp(back) == 0)
        sum += leap(30);
    else
        sum += wide(6);
    printf("%d\n", sum);
    return 0;
}
