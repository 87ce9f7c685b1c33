/* Says how every signal is handled, as far as a program can ask: by itself, after each way to
 * set the default, in a child, after exec. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void handler(int number) { (void)number; }

static const char *name(void *what)
{
    return what == (void *)SIG_DFL ? "default" : what == (void *)SIG_IGN ? "ignored" : what == (void *)handler ? "handler" : "else";
}

static void say(const char *when)
{
    printf("%s:", when);
    for (int i = 1; i < 32; i++) {
        struct sigaction now;
        memset(&now, 0x55, sizeof now);
        if (sigaction(i, NULL, &now) != 0)
            continue;
        int masked = 0;
        for (int j = 1; j < 32; j++)
            masked += sigismember(&now.sa_mask, j) == 1;
        printf(" %d %s %x %d", i, name((void *)now.sa_handler), now.sa_flags & ~0x4000000, masked);
    }
    puts("");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    say(argc > 1 ? argv[1] : "begun");
    if (argc > 1)
        return 0;
    int some[] = {SIGHUP, SIGINT, SIGTERM, SIGABRT, SIGSEGV, SIGPIPE, SIGUSR1, SIGCHLD};
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
        struct sigaction new = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
        sigaddset(&new.sa_mask, SIGUSR2);
        printf("%d signal %s", some[i], name((void *)signal(some[i], handler)));
        printf(" %s", name((void *)signal(some[i], SIG_DFL)));
        printf(" %s", name((void *)signal(some[i], SIG_IGN)));
        sigaction(some[i], &new, &old);
        printf(" sigaction %s", name((void *)old.sa_handler));
        new.sa_handler = SIG_DFL;
        sigaction(some[i], &new, &old);
        printf(" %s %x", name((void *)old.sa_handler), old.sa_flags & ~0x4000000);
        printf(" sigset %s", name((void *)sigset(some[i], handler)));
        printf(" %s", name((void *)sigset(some[i], SIG_DFL)));
        printf(" sysv %s\n", name((void *)sysv_signal(some[i], SIG_DFL)));
    }
    printf("wrong %d %d\n", sigaction(99, NULL, NULL), signal(SIGKILL, handler) == SIG_ERR);
    signal(SIGHUP, SIG_IGN);
    say("set");
    fflush(stdout);
    if (fork() == 0) {
        say("child");
        _exit(0);
    }
    wait(NULL);
    execl("/proc/self/exe", "dispositions", "replaced", NULL);
    return 9;
}
