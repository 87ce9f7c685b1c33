/* Closes what it did not open, then opens files until there is no descriptor left; loses a block. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

__attribute__((noinline)) static void lose(void) {
    void *volatile block = malloc(1000); /* site: lose */
    block = NULL;
}

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IONBF, 0);
    lose();
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    write(1, "ready\n", 6);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur != 64;
}
