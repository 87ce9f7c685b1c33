/* stress SECONDS: four threads do everything to blocks whose contents they
   check, and hand blocks to each other. Prints "ok" or what broke. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 4, SLOTS = 512, SHARED = 64 };

struct block {
    size_t size;
    uint32_t seed;
    uint32_t check;
};

static _Atomic(struct block *) shared[SHARED];
static atomic_int wrong;
static time_t end;

static uint32_t next(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static unsigned char at(uint32_t seed, size_t i) {
    return (unsigned char)(seed + i * 31);
}

/* Checks the first bytes, the last bytes and a stride between. */
static size_t stride(size_t size) {
    return size < 256 ? 1 : size / 128;
}

static void fill(struct block *block, size_t size, uint32_t seed) {
    *block = (struct block){size, seed, seed ^ (uint32_t)size};
    unsigned char *bytes = (unsigned char *)(block + 1);
    for (size_t i = 0; i < size; i += stride(size))
        bytes[i] = at(seed, i);
    bytes[size - 1] = at(seed, size - 1);
}

static void verify(struct block *block, size_t upto) {
    if (!block)
        return;
    unsigned char *bytes = (unsigned char *)(block + 1);
    int bad = block->check != (block->seed ^ (uint32_t)block->size);
    for (size_t i = 0; !bad && i < upto; i += stride(block->size))
        bad |= bytes[i] != at(block->seed, i);
    if (!bad && upto == block->size)
        bad |= bytes[upto - 1] != at(block->seed, upto - 1);
    atomic_fetch_add(&wrong, bad);
}

static size_t random_size(uint32_t *state) {
    uint32_t kind = next(state) % 1000;
    if (kind < 800)
        return 1 + next(state) % 500;
    if (kind < 985)
        return 1 + next(state) % 20000;
    if (kind < 999)
        return 1 + next(state) % 600000;
    return 1 + next(state) % 6000000;
}

static struct block *make(uint32_t *state) {
    size_t size = random_size(state), whole = sizeof(struct block) + size;
    struct block *block = NULL;
    switch (next(state) % 4) {
    case 0:
        block = calloc(1, whole);
        for (size_t i = 0; i < whole; i += stride(whole))
            atomic_fetch_add(&wrong, ((unsigned char *)block)[i] != 0);
        break;
    case 1: {
        size_t alignment = (size_t)16 << next(state) % 12;
        if (posix_memalign((void **)&block, alignment, whole) != 0 || (uintptr_t)block % alignment)
            atomic_fetch_add(&wrong, 1);
        break;
    }
    default:
        block = malloc(whole);
    }
    if (malloc_usable_size(block) < whole)
        atomic_fetch_add(&wrong, 1);
    fill(block, size, next(state));
    return block;
}

static struct block *regrow(struct block *block, uint32_t *state) {
    size_t size = random_size(state), before = block->size;
    block = realloc(block, sizeof *block + size);
    if (size >= before)
        verify(block, before);
    else if (block->check != (block->seed ^ (uint32_t)before))
        atomic_fetch_add(&wrong, 1);
    fill(block, size, next(state));
    return block;
}

static void *run(void *argument) {
    uint32_t state = 2463534242u * (uint32_t)((uintptr_t)argument + 1);
    struct block **slots = calloc(SLOTS, sizeof *slots);
    for (unsigned i = 0; i % 256 || time(NULL) < end; i++) {
        struct block **slot = &slots[next(&state) % SLOTS];
        verify(*slot, *slot ? (*slot)->size : 0);
        switch (next(&state) % 8) {
        case 0:
        case 1: {
            struct block *taken = atomic_exchange(&shared[next(&state) % SHARED], *slot);
            verify(taken, taken ? taken->size : 0);
            *slot = taken;
            break;
        }
        case 2:
            if (*slot)
                *slot = regrow(*slot, &state);
            break;
        default:
            free(*slot);
            *slot = make(&state);
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        verify(slots[i], slots[i] ? slots[i]->size : 0);
        free(slots[i]);
    }
    free(slots);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 2);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARED; i++)
        free(atomic_load(&shared[i]));
    if (wrong)
        printf("%d blocks were wrong\n", wrong);
    else
        printf("ok\n");
    return wrong != 0;
}
