/* suppressed [fork]: has suppressions of its own, and waits for the end of its input; in a
   forked child when told to. Linked with -rdynamic, or nobody could find the function. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:keep_this\n# a remark\nleak:^cache_*$\n"; }

__attribute__((noinline)) static char *keep_this(void) { return malloc(100); }

static void wait_for_input(void) {
    char *volatile kept = keep_this();
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    free(kept);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "fork") == 0) {
        pid_t child = fork();
        if (child == 0) {
            /* Long enough lived to have books of its own. */
            for (int i = 0; i < 4000; i++) {
                char *volatile block = malloc(64);
                *block = 1;
            }
            wait_for_input();
            return 0;
        }
        int status;
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    }
    wait_for_input();
    return 0;
}
