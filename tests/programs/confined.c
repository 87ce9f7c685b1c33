/* Runs a command as a container or a service manager does: under a filter of system calls that refuses
 * some and ends the process for others that few programs make.
 *
 *   confined [-1] COMMAND...     -1: it cannot fork either, and what reads another process's memory ends it */
#include <errno.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSE(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define KILL(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static int confine(struct sock_filter *code, unsigned short length)
{
    struct sock_fprog program = {length, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

int main(int count, char **arguments)
{
    struct sock_filter some[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSE(SYS_mincore),
        REFUSE(SYS_process_vm_readv),
        REFUSE(SYS_userfaultfd),
        REFUSE(SYS_perf_event_open),
        KILL(SYS_close_range),
        KILL(SYS_rt_tgsigqueueinfo),
        KILL(SYS_kcmp),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_filter alone[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL(SYS_process_vm_readv),
        REFUSE(SYS_fork),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_VM, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    int first = count > 1 && strcmp(arguments[1], "-1") == 0 ? 2 : 1;
    int done = first == 2 ? confine(alone, sizeof alone / sizeof *alone) : confine(some, sizeof some / sizeof *some);
    if (count <= first || !done)
        return 9;
    execvp(arguments[first], arguments + first);
    perror(arguments[first]);
    return 127;
}
