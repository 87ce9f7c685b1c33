/* The corners of the malloc family, one line each; "ok" or what was wrong.
   Where glibc's versions differ, what any of them does is accepted. */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;

static void check(const char *what, int right) {
    printf("%s: %s\n", what, right ? "ok" : "WRONG");
    failed += !right;
}

static int aligned_to(void *block, size_t alignment) {
    return (uintptr_t)block % alignment == 0;
}

static volatile size_t huge = PTRDIFF_MAX;
static volatile size_t most = SIZE_MAX;
static volatile size_t none = 0;

static void zero_and_huge(void) {
    void *a = malloc(none), *b = malloc(none), *c = calloc(none, 8);
    check("malloc(0) is a block of its own", a && b && c && a != b && b != c);
    free(a), free(b), free(c);
    errno = 0;
    check("malloc past PTRDIFF_MAX", !malloc(huge + 1) && errno == ENOMEM);
    errno = 0;
    check("malloc(SIZE_MAX)", !malloc(most) && errno == ENOMEM);
    errno = 0;
    check("malloc(SIZE_MAX - 15)", !malloc(most - 15) && errno == ENOMEM);
    errno = 0;
    check("calloc overflow", !calloc(most / 2, 3) && errno == ENOMEM);
    errno = 0;
    check("calloc overflow by rounding", !calloc((most >> 32) + 1, (most >> 32) + 1) && errno == ENOMEM);
    char *zeros = calloc(1000, 1000);
    int dirty = 0;
    for (int i = 0; i < 1000000; i++)
        dirty |= zeros[i];
    memset(zeros, 1, 1000000);
    free(zeros);
    for (int round = 0; round < 50; round++) {
        char *small = calloc(1, 300);
        for (int i = 0; i < 300; i++)
            dirty |= small[i];
        memset(small, 0xff, 300);
        free(small);
    }
    zeros = calloc(1, 1000000);
    for (int i = 0; i < 1000000; i++)
        dirty |= zeros[i];
    free(zeros);
    check("calloc gives zeros, recycled too", !dirty);
}

static void reallocs(void) {
    void *p = malloc(100);
    errno = 77;
    void *q = realloc(p, none);
    check("realloc(p, 0) frees and answers NULL", q == NULL && errno == 77);
    q = realloc(NULL, none);
    check("realloc(NULL, 0) is a block", q != NULL);
    free(q);
    q = realloc(NULL, 33);
    check("realloc(NULL, n) is malloc", q && malloc_usable_size(q) >= 33);
    memset(q, 5, 33);
    errno = 0;
    void *failed_one = realloc(q, huge + 1);
    check("a failed realloc keeps the block", !failed_one && errno == ENOMEM && ((char *)q)[32] == 5);
    int same = 1;
    for (size_t size = 33; size < 5000000; size = size * 3 / 2) {
        q = realloc(q, size);
        same &= ((char *)q)[0] == 5 && ((char *)q)[32] == 5;
        if (size > 33)
            ((char *)q)[size - 1] = 9;
    }
    for (size_t size = 5000000; size > 40; size /= 2) {
        q = realloc(q, size);
        same &= ((char *)q)[0] == 5 && ((char *)q)[32] == 5;
    }
    check("realloc keeps the contents up and down", same);
    free(q);
    errno = 0;
    check("reallocarray overflow", !reallocarray(NULL, most / 2, 3) && errno == ENOMEM);
    q = reallocarray(NULL, 10, 10);
    check("reallocarray", q && malloc_usable_size(q) >= 100);
    free(q);
    void *aligned = memalign(4096, 100);
    memset(aligned, 3, 100);
    aligned = realloc(aligned, 20000);
    check("realloc of an aligned block", aligned && ((char *)aligned)[99] == 3);
    free(aligned);
}

static void alignments(void) {
    int right = 1;
    for (size_t size = 0; size < 3000; size++) {
        void *p = malloc(size);
        right &= aligned_to(p, 16) && malloc_usable_size(p) >= size;
        memset(p, 1, malloc_usable_size(p));
        free(p);
    }
    check("16-byte alignment and usable size of every size", right);
    right = 1;
    for (size_t alignment = 8; alignment <= 8 << 20; alignment *= 2) {
        void *blocks[6];
        size_t sizes[6] = {0, 1, 100, alignment, alignment + 1, 3 * alignment};
        for (int i = 0; i < 6; i++) {
            right &= posix_memalign(&blocks[i], alignment, sizes[i]) == 0;
            right &= blocks[i] && aligned_to(blocks[i], alignment);
            right &= malloc_usable_size(blocks[i]) >= sizes[i];
            memset(blocks[i], 2, sizes[i]);
        }
        for (int i = 0; i < 6; i++)
            free(blocks[i]);
    }
    check("posix_memalign, 8 bytes to 8 MiB", right);
    void *p = (void *)123;
    errno = 77;
    right = posix_memalign(&p, none + 3, 10) == EINVAL && posix_memalign(&p, none + 4, 10) == EINVAL;
    check("posix_memalign refuses 3 and 4, p and errno untouched", right && p == (void *)123 && errno == 77);
    right = posix_memalign(&p, 64, huge) == ENOMEM;
    check("posix_memalign too big", right);
    right = posix_memalign(&p, 8, none) == 0 && p;
    free(p);
    check("posix_memalign(8, 0)", right);
    p = aligned_alloc(64, 100);
    check("aligned_alloc(64, 100)", p && aligned_to(p, 64));
    free(p);
    errno = 0;
    p = aligned_alloc(none + 3, 100);
    check("aligned_alloc(3, 100)", p || errno == EINVAL);
    free(p);
    errno = 0;
    check("aligned_alloc too big", !aligned_alloc(64, most - 10) && errno == ENOMEM);
    p = memalign(none + 3, 50);
    check("memalign(3, 50)", p && aligned_to(p, 4));
    free(p);
    p = valloc(10);
    check("valloc", p && aligned_to(p, 4096));
    free(p);
    p = pvalloc(1);
    check("pvalloc(1)", p && aligned_to(p, 4096) && malloc_usable_size(p) >= 4096);
    free(p);
    p = pvalloc(none);
    check("pvalloc(0)", p && aligned_to(p, 4096));
    free(p);
    errno = 0;
    check("pvalloc(SIZE_MAX)", !pvalloc(most) && errno == ENOMEM);
}

static void frees_and_reports(void) {
    void *small = malloc(30), *big = malloc(64 << 20), *aligned = memalign(1 << 16, 1 << 16);
    errno = 77;
    free(small), free(big), free(aligned), free(NULL);
    check("free keeps errno", errno == 77);
    for (int i = 0; i < 10000; i++) {
        void *p = malloc((size_t)i * 17 % 70000);
        errno = 78;
        free(p);
        if (errno != 78)
            break;
    }
    check("free keeps errno on every path", errno == 78);
    void *p = malloc(10);
    errno = 79;
    p = realloc(p, 11);
    check("a successful realloc keeps errno", errno == 79);
    free(p);
    check("malloc_usable_size(NULL)", malloc_usable_size(NULL) == 0);
    int trimmed = malloc_trim(0);
    check("malloc_trim", trimmed == 0 || trimmed == 1);
    check("mallopt", mallopt(M_ARENA_MAX, 2) == 1);
    p = malloc(123456);
    struct mallinfo2 info = mallinfo2();
    check("mallinfo2", info.uordblks + info.hblkhd >= 123456);
    free(p);
    FILE *out = tmpfile();
    char first[16] = "";
    int status = malloc_info(0, out);
    rewind(out);
    check("malloc_info writes XML", status == 0 && fgets(first, sizeof first, out) && first[0] == '<');
    fclose(out);
    void (*free_sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    void (*free_aligned_sized)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
    p = malloc(77);
    free_sized ? free_sized(p, 77) : free(p);
    p = aligned_alloc(64, 128);
    free_aligned_sized ? free_aligned_sized(p, 64, 128) : free(p);
    check("free_sized, free_aligned_sized", 1);
    char *line = strdup("strdup");
    char *printed = NULL;
    check("asprintf", asprintf(&printed, "%s and %d", line, 5) == 12 && strcmp(printed, "strdup and 5") == 0);
    free(line), free(printed);
}

int main(void) {
    zero_and_huge();
    reallocs();
    alignments();
    frees_and_reports();
    printf("edges: %d wrong\n", failed);
    return failed != 0;
}
