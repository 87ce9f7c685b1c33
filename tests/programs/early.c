/* Allocates before main: preinit array, constructors, beside an IFUNC. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *first, *second, *third;

static void preinit(int argc, char **argv, char **envp) {
    (void)argc, (void)argv, (void)envp;
    first = malloc(100);
    strcpy(first, "preinit");
}

__attribute__((section(".preinit_array"), used)) static void (*preinit_entry)(int, char **, char **) = preinit;

__attribute__((constructor(101))) static void early(void) {
    second = calloc(1, 2000);
    strcpy(second, "constructor");
}

__attribute__((constructor)) static void later(void) {
    third = realloc(strdup("x"), 100000);
    strcpy(third, "later");
}

static int one(void) {
    return 1;
}

static int (*resolve(void))(void) {
    return one;
}

int chosen(void) __attribute__((ifunc("resolve")));

int main(void) {
    printf("%s %s %s %d\n", first, second, third, chosen());
    free(first), free(second), free(third);
    return 0;
}
