/* Every way to make a child and every way for a child to end. The parent
   speaks only after waiting, so the output has one order. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile int stop;

__attribute__((noinline)) static void *kept_by_parent(size_t size) {
    return malloc(size); /* site: kept_by_parent */
}

__attribute__((noinline)) static void *kept_by_child(size_t size) {
    return malloc(size); /* site: kept_by_child */
}

static void churn(int rounds) {
    void *slots[32] = {0};
    for (int i = 0; i < rounds; i++) {
        free(slots[i % 32]);
        slots[i % 32] = malloc((size_t)(i * 37 % 5000) + 1);
        *(volatile char *)slots[i % 32] = 1;
    }
    for (int i = 0; i < 32; i++)
        free(slots[i]);
}

static void report(const char *what, pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status))
        printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else
        printf("%s: signal %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

__attribute__((noinline)) static void ends(void) {
    void *before = kept_by_parent(1000);
    pid_t child;
    if ((child = fork()) == 0) {
        free(before);
        churn(2000);
        _exit(7);
    }
    report("_exit", child);
    if ((child = fork()) == 0) {
        for (int i = 0; i < 10; i++)
            memset(kept_by_child(200), 1, 200);
        usleep(150000);
        churn(20000);
        exit(8);
    }
    report("exit", child);
    if ((child = fork()) == 0) {
        churn(100);
        execl("/bin/true", "true", (char *)NULL);
        _exit(99);
    }
    report("exec", child);
    if ((child = fork()) == 0) {
        churn(100);
        abort();
    }
    report("abort", child);
    if ((child = fork()) == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            churn(1000);
            _exit(5);
        }
        int status;
        waitpid(grandchild, &status, 0);
        churn(1000);
        _exit(WEXITSTATUS(status) + 1);
    }
    report("grandchild", child);
    before = realloc(before, 2000);
}

static void others(void) {
    pid_t child = vfork();
    if (child == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(99);
    }
    report("vfork", child);
    char *arguments[] = {"sh", "-c", "exit 4", NULL};
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0)
        report("posix_spawn", child);
    printf("system: %d\n", WEXITSTATUS(system("exit 3")));
    char line[32] = "";
    FILE *pipe = popen("echo through a pipe", "r");
    printf("popen: %s", fgets(line, sizeof line, pipe));
    pclose(pipe);
    fflush(stdout);
    child = (pid_t)syscall(SYS_fork);
    if (child == 0) {
        churn(3000);
        _exit(6);
    }
    report("raw fork", child);
}

static void *hammer(void *unused) {
    while (!stop)
        churn(500);
    return unused;
}

static void under_fire(void) {
    pthread_t threads[4];
    int wrong = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, hammer, NULL);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            churn(1000);
            _exit(0);
        }
        int status = 1;
        waitpid(child, &status, 0);
        wrong += status != 0;
    }
    stop = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("under fire: %d wrong\n", wrong);
}

int main(void) {
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    ends();
    others();
    under_fire();
    return 0;
}
