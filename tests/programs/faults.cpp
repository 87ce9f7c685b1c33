// faults WHAT: one misuse that the debug heap names, then the program goes on.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <new>

using Free = void (*)(void *, size_t);
using FreeAligned = void (*)(void *, size_t, size_t);

__attribute__((noinline)) static char *make(size_t bytes) {
    return static_cast<char *>(malloc(bytes)); // site: make
}

__attribute__((noinline)) static void free_first(char *block) {
    free(block); // site: free_first
    asm volatile("");
}

__attribute__((noinline)) static void free_again(char *block) {
    free(block); // site: free_again
    asm volatile("");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "none";
    auto is = [&](const char *name) { return strcmp(what, name) == 0; };
    auto free_sized = reinterpret_cast<Free>(dlsym(RTLD_DEFAULT, "free_sized"));
    auto free_aligned = reinterpret_cast<FreeAligned>(dlsym(RTLD_DEFAULT, "free_aligned_sized"));
    char *volatile block = make(40);
    memset(block, 1, 40);
    if (is("double")) {
        free_first(block);
        free_again(block);
    } else if (is("interior")) {
        free(block + 16);
    } else if (is("size")) {
        free_sized(block, 41); // site: size
    } else if (is("right_size")) {
        free_sized(block, 40);
    } else if (is("alignment")) {
        free_aligned(aligned_alloc(64, 128), 128, 128); // site: alignment
    } else if (is("right_alignment")) {
        free_aligned(aligned_alloc(64, 128), 64, 128);
    } else if (is("kind")) {
        operator delete(static_cast<void *>(block)); // site: kind
    } else if (is("array")) {
        char *volatile array = new char[10]; // site: new
        operator delete(static_cast<void *>(array)); // site: array
    } else if (is("sized_delete")) {
        operator delete(operator new(50), static_cast<size_t>(49)); // site: sized_delete
    } else if (is("right_deletes")) {
        operator delete(operator new(50), static_cast<size_t>(50));
        operator delete[](operator new[](50), static_cast<size_t>(50));
        operator delete(operator new(50, std::align_val_t(64)), static_cast<size_t>(50), std::align_val_t(64));
        operator delete[](operator new[](50, std::align_val_t(64)), std::align_val_t(64));
        free(block);
    } else if (is("overflow")) {
        block[40] = 1;
        free(block); // site: overflow
    } else if (is("underflow")) {
        block[-1] = 1;
        free(block);
    } else if (is("late_write")) {
        free(block); // site: late_write
        block[20] = 1;
    } else if (is("retired_write")) {
        // Away from blocks that live on: memory goes back when all around it is freed.
        for (int i = 0; i < 100; i++)
            free(make(1000));
        block = make(40);
        free(block); // site: retired_write
        block[20] = 1;
        for (int i = 0; i < 40000; i++)
            free(make(1000));
    } else if (is("late_double")) {
        free(block); // site: late_double
        for (int i = 0; i < 40000; i++)
            free(make(1000));
        free(block); // site: late_double_again
    }
    char *blocks[1000];
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        blocks[i] = make(40 + static_cast<size_t>(i % 3) * 30);
        memset(blocks[i], i & 127, 40);
    }
    for (int i = 0; i < 1000; i++) {
        wrong += blocks[i][0] != (i & 127) || blocks[i][39] != (i & 127);
        free(blocks[i]);
    }
    printf("survived, %d wrong\n", wrong);
}
