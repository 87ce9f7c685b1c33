/* Closes every descriptor it did not open, reuses the numbers, goes on. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

__attribute__((noinline)) static void *after_close(void) {
    return malloc(100); /* site: after_close */
}

static void churn(void) {
    void *slots[64] = {0};
    for (int i = 0; i < 30000; i++) {
        free(slots[i % 64]);
        slots[i % 64] = malloc((size_t)(i * 97 % 40000) + 1);
        *(volatile char *)slots[i % 64] = 1;
    }
    for (int i = 0; i < 64; i++)
        free(slots[i]);
}

int main(int argc, char **argv) {
    static int files[4096];
    int count = 0, wrong = 0;
    struct rlimit limit = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &limit);
    churn();
    if (argc > 1 && strcmp(argv[1], "range") == 0)
        close_range(3, ~0U, 0);
    else
        for (int fd = 3; fd < 4096; fd++)
            close(fd);
    churn();
    while (count < 4096 && (files[count] = memfd_create("mine", 0)) >= 0) {
        wrong += write(files[count], "mine", 4) != 4;
        count++;
    }
    for (int round = 0; round < 5; round++)
        churn();
    for (int i = 0; i < 10; i++)
        memset(after_close(), 1, 100);
    for (int i = 0; i < count; i++) {
        char text[8] = "";
        wrong += pread(files[i], text, 8, 0) != 4 || strcmp(text, "mine") != 0;
        wrong += close(files[i]) != 0;
    }
    churn();
    printf("closefds: %s, %d wrong\n", count > 4000 ? "full" : "too few", wrong);
    return wrong != 0;
}
