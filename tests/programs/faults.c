/* faults WHAT: meets one fault and says what came of it; any crash is the allocator's.
   Each line it prints holds for every allocator that behaves. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char global[4096];
static int wrong;

static void check(int holds, const char *what) {
    if (!holds) {
        wrong++;
        printf("not so: %s\n", what);
    }
}

static int is_zero(const char *block, size_t bytes) {
    for (size_t at = 0; at < bytes; at++)
        if (block[at])
            return 0;
    return 1;
}

/* Ordinary work of many sizes; every block zero from calloc, and its own. */
static void work(void) {
    enum { COUNT = 400 };
    char *blocks[COUNT];
    size_t sizes[COUNT];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < COUNT; i++) {
            sizes[i] = (size_t)1 << (i % 18);
            blocks[i] = calloc(1, sizes[i]);
            check(blocks[i] != NULL, "memory for work");
            if (!blocks[i])
                continue;
            check(is_zero(blocks[i], sizes[i]), "calloc is zero");
            memset(blocks[i], i | 1, sizes[i]);
        }
        for (int i = 0; i < COUNT; i++)
            if (blocks[i]) {
                check(blocks[i][sizes[i] - 1] == (char)(i | 1), "content");
                free(blocks[i]);
            }
        malloc_trim(0);
    }
}

/* Takes until refused; refusal is NULL and ENOMEM; what was taken is usable and serves again. */
static void exhaust(size_t bytes) {
    void **last = NULL;
    size_t count = 0;
    errno = 0;
    for (void **block; (block = malloc(bytes)); last = block, count++) {
        memset(block, 1, bytes < 4096 ? bytes : 4096);
        *block = last;
    }
    check(errno == ENOMEM, "errno is ENOMEM");
    check(count > 0, "something was served");
    check(!last || !realloc(last, (size_t)1 << 46), "realloc refuses");
    while (last) {
        void **next = *last;
        free(last);
        last = next;
    }
    char *again = malloc(bytes);
    check(again != NULL, "memory serves again");
    free(again);
}

static void *in_thread(void *unused) {
    char *block = malloc(100);
    check(block != NULL, "a thread's memory");
    free(block);
    return unused;
}

static void fill_maps(void) {
    long made = 0;
    /* Alternating protections, so that neighbours cannot merge. */
    while (mmap(NULL, 4096, made % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        made++;
    check(errno == ENOMEM, "no more maps");
    check(made > 100, "maps were made");
}

static void lock_all(void) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
        printf("skip: mlockall is not allowed\n");
        return;
    }
    for (int round = 0; round < 3; round++) {
        char *large = malloc(3 << 20);
        if (large)
            memset(large, 0x55, 3 << 20);
        free(large);
        malloc_trim(0);
        char *zero = calloc(1, 3 << 20);
        check(zero && is_zero(zero, 3 << 20), "calloc is zero over locked pages");
        free(zero);
    }
}

static void sizes(void) {
    volatile size_t wild[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 15, SIZE_MAX - 4096, SIZE_MAX / 2 + 1, (size_t)PTRDIFF_MAX,
                              (size_t)1 << 60, (size_t)1 << 50, (size_t)1 << 48};
    char *volatile kept = malloc(100);
    memset(kept, 7, 100);
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        errno = 0;
        check(!malloc(wild[i]) && errno == ENOMEM, "malloc of a wild size");
        errno = 0;
        check(!calloc(wild[i], 1) && errno == ENOMEM, "calloc of a wild size");
        check(!calloc(wild[i], 16), "calloc that overflows");
        check(!realloc(kept, wild[i]), "realloc to a wild size");
        check(!reallocarray(kept, wild[i], 16), "reallocarray that overflows");
        check(!memalign(64, wild[i]) && !valloc(wild[i]) && !pvalloc(wild[i]), "aligned, of a wild size");
        void *into = kept;
        check(posix_memalign(&into, 4096, wild[i]) == ENOMEM && into == kept, "posix_memalign of a wild size");
    }
    check(kept[0] == 7 && kept[99] == 7, "the old block is whole");
    free(kept);
    for (int shift = 0; shift < 64; shift++) {
        size_t align = (size_t)1 << shift;
        for (size_t bytes = 1; bytes < 300000; bytes = bytes * 17 + 3) {
            char *block = memalign(align, bytes);
            check(block || shift > 20, "modest alignments are served");
            check(((uintptr_t)block & (align - 1)) == 0, "aligned");
            if (block)
                block[0] = block[bytes - 1] = 1;
            free(block);
            void *into = NULL;
            int failed = posix_memalign(&into, align, bytes);
            check(failed == (shift < 3 ? EINVAL : into ? 0 : ENOMEM), "posix_memalign's answer");
            free(into);
        }
    }
    void *into = NULL;
    check(posix_memalign(&into, 24, 8) == EINVAL && posix_memalign(&into, 0, 8) == EINVAL, "no power of two");
}

/* Frees what is no block; then everything still works. */
static void pointers(void) {
    char here[256] = {0};
    /* What lies before it may not be read. */
    char *mapped = mmap(NULL, (1 << 16) + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(mapped, 4096, PROT_NONE);
    mapped += 4096;
    char *small = malloc(100), *medium = malloc(20000), *large = malloc(500000);
    memset(small, 1, 100);
    memset(medium, 2, 20000);
    memset(large, 3, 500000);
    char *wild[] = {here,         here + 8,       here + 64,       global + 16,     mapped,     mapped + 4096,
                    mapped + 17,  small + 1,      small + 16,      small + 64,      medium + 8, medium + 4096,
                    medium + 70000 % 19999, large + 16, large + 65536, large + 65537, large + 499999,
                    (char *)16,   (char *)0x12340, (char *)(UINTPTR_MAX - 15), (char *)((uintptr_t)1 << 63),
                    (char *)(uintptr_t)&free};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        char *volatile pointer = wild[i];
        free(pointer);
        check(malloc_usable_size(pointer) <= 1 << 20, "usable size of what is no block");
        check(!realloc(pointer, 200), "realloc of what is no block is refused");
    }
    check(small[0] == 1 && small[99] == 1 && medium[0] == 2 && medium[19999] == 2, "blocks are whole");
    check(large[0] == 3 && large[499999] == 3, "the large block is whole");
    free(small), free(medium), free(large);
}

static void *free_it(void *pointer) {
    free(pointer);
    return NULL;
}

/* Frees where a block would begin but none ever did, far behind the only ones of their size. */
static void uncarved(int in_thread_too) {
    enum { SIZE = 224 };
    char *volatile block = malloc(SIZE);
    memset(block, 1, SIZE);
    char *never = block + (size_t)SIZE * 100;
    pthread_t id;
    if (!in_thread_too)
        free_it(never);
    else if (pthread_create(&id, NULL, free_it, never) == 0)
        pthread_join(id, NULL);
    char *blocks[250];
    for (int i = 0; i < 250; i++)
        memset(blocks[i] = malloc(SIZE), i, SIZE);
    for (int i = 0; i < 250; i++)
        check(blocks[i][0] == (char)i && blocks[i][SIZE - 1] == (char)i, "one owner per block");
    for (int i = 0; i < 250; i++)
        free(blocks[i]);
    check(block[0] == 1 && block[SIZE - 1] == 1, "the block is whole");
    free(block);
}

/* Frees blocks twice: at once, when the page is gone, and when its memory is. */
static void twice(void) {
    static const size_t each[] = {16, 100, 1000, 9000, 65536, 65537, 500000, 5000000};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        for (int neighbours = 0; neighbours < 2; neighbours++)
            for (int trim = 0; trim < 2; trim++) {
                char *volatile before = malloc(each[i]);
                char *volatile block = malloc(each[i]);
                char *volatile after = malloc(each[i]);
                memset(block, 1, each[i]);
                if (neighbours)
                    free(before), free(after);
                free(block);
                if (trim)
                    malloc_trim(0);
                free(block);
                free(block);
                check(malloc_usable_size(block) <= 8 << 20, "usable size of a freed block");
                char *volatile moved = realloc(block, each[i] / 2 + 1);
                check(!moved, "realloc of a freed block is refused");
                if (!neighbours)
                    free(before), free(after);
                /* Two owners of one block would show here. */
                char *blocks[64];
                for (int j = 0; j < 64; j++)
                    memset(blocks[j] = malloc(each[i] < 70000 ? each[i] : 70000), j, 16);
                for (int j = 0; j < 64; j++)
                    check(blocks[j][0] == j && blocks[j][15] == j, "one owner per block");
                for (int j = 0; j < 64; j++)
                    free(blocks[j]);
            }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "work";
    int all = !strcmp(what, "all");
    if (all || !strcmp(what, "sizes"))
        sizes();
    if (!strcmp(what, "pointers"))
        pointers();
    if (!strcmp(what, "twice"))
        twice();
    if (!strcmp(what, "uncarved") || !strcmp(what, "uncarved_by_thread"))
        uncarved(!strcmp(what, "uncarved_by_thread"));
    if (!strcmp(what, "exhaust")) {
        exhaust(40);
        exhaust(3000);
        exhaust(200000);
    }
    if (!strcmp(what, "maps"))
        fill_maps();
    if (!strcmp(what, "lock"))
        lock_all();
    if (!strcmp(what, "files")) {
        struct rlimit three = {3, 3};
        setrlimit(RLIMIT_NOFILE, &three);
    }
    work();
    pthread_t id;
    if (pthread_create(&id, NULL, in_thread, NULL) == 0)
        pthread_join(id, NULL);
    printf("faults: %d wrong\n", wrong);
    return wrong != 0;
}
