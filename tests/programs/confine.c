/* confine WHAT... -- PROGRAM ARG...: runs a program under limits it cannot lift.
   as=BYTES data=BYTES nofile=N   resource limits
   deny=madvise|memfd|socket|mprotect   that system call answers EPERM (seccomp)
   thp=never   no huge pages for the process */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <errno.h>

static int deny(unsigned number) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int limit(int what, const char *value) {
    struct rlimit both = {strtoull(value, NULL, 0), strtoull(value, NULL, 0)};
    return setrlimit(what, &both);
}

static int apply(const char *word) {
    const char *value = strchr(word, '=') + 1;
    if (!strncmp(word, "as=", 3))
        return limit(RLIMIT_AS, value);
    if (!strncmp(word, "data=", 5))
        return limit(RLIMIT_DATA, value);
    if (!strncmp(word, "nofile=", 7))
        return limit(RLIMIT_NOFILE, value);
    if (!strcmp(word, "deny=madvise"))
        return deny(SYS_madvise);
    if (!strcmp(word, "deny=memfd"))
        return deny(SYS_memfd_create);
    if (!strcmp(word, "deny=socket"))
        return deny(SYS_socket);
    if (!strcmp(word, "deny=mprotect"))
        return deny(SYS_mprotect);
    if (!strcmp(word, "thp=never"))
        return prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    return -1;
}

int main(int argc, char **argv) {
    int at = 1;
    for (; at < argc && strcmp(argv[at], "--"); at++)
        if (!strchr(argv[at], '=') || apply(argv[at])) {
            perror(argv[at]);
            return 99;
        }
    /* The program gets the shim, this wrapper did not. */
    if (getenv("CONFINE_PRELOAD"))
        setenv("LD_PRELOAD", getenv("CONFINE_PRELOAD"), 1);
    execv(argv[at + 1], argv + at + 1);
    perror(argv[at + 1]);
    return 99;
}
