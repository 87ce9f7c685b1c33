/* Factors numbers by trial division with numbers of any length, each result a
 * fresh block of a few words: tens of millions of tiny, short-lived blocks.
 *
 *   factor COUNT    factors COUNT numbers, prints a check sum of the factors */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct number {
    uint32_t length;
    uint32_t words[];
};

static struct number *number(uint32_t length)
{
    struct number *n = malloc(sizeof *n + length * sizeof n->words[0]);
    if (!n)
        abort();
    n->length = length;
    return n;
}

static struct number *from(uint64_t value)
{
    struct number *n = number(2);
    n->words[0] = (uint32_t)value;
    n->words[1] = (uint32_t)(value >> 32);
    return n;
}

static struct number *multiply(const struct number *a, uint32_t by)
{
    struct number *n = number(a->length + 1);
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->length; i++) {
        carry += (uint64_t)a->words[i] * by;
        n->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    n->words[a->length] = (uint32_t)carry;
    return n;
}

static struct number *divide(const struct number *a, uint32_t by, uint32_t *rest)
{
    struct number *n = number(a->length);
    uint64_t left = 0;
    for (uint32_t i = a->length; i-- > 0;) {
        left = left << 32 | a->words[i];
        n->words[i] = (uint32_t)(left / by);
        left %= by;
    }
    *rest = (uint32_t)left;
    return n;
}

static uint64_t sum(const struct number *n)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n->length; i++)
        total = total * 31 + n->words[i];
    return total;
}

/* Divides out every prime below a bound; what is left is the answer. */
static struct number *reduce(struct number *n, uint64_t *check)
{
    for (uint32_t by = 2; by < 2000; by += 1 + (by & 1)) {
        for (;;) {
            uint32_t rest;
            struct number *quotient = divide(n, by, &rest);
            if (rest != 0) {
                free(quotient);
                break;
            }
            free(n);
            n = quotient;
            *check = *check * 1000003 + by;
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000;
    uint64_t check = 0, seed = 88172645463325252ull;
    for (long i = 0; i < count; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        struct number *n = from(seed | 1);
        for (uint32_t by = 3; by < 24; by += 2) {
            struct number *product = multiply(n, by);
            free(n);
            n = product;
        }
        n = reduce(n, &check);
        check ^= sum(n);
        free(n);
    }
    printf("%016llx\n", (unsigned long long)check);
    return 0;
}
