/* Calls with a time-out that a stop cuts short, each in a thread of its own. Ends when standard
 * input does; says what ended otherwise than by its time-out. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static atomic_long noticed, rounds;
static char room[1 << 20];
static struct iovec part = {room, sizeof room};

/* A socket whose calls wait for 150 ms; the other end of a pair stays open. */
static int timed(int socket)
{
    struct timeval limit = {0, 150000};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return socket;
}

static int pair(int full)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        abort();
    while (full && send(ends[0], room, sizeof room, MSG_DONTWAIT) > 0)
        ;
    return timed(ends[0]);
}

/* Listens for nobody else: one more connection waits in it already. */
static int listener(int taken, struct sockaddr_un *at)
{
    int made = timed(socket(AF_UNIX, SOCK_STREAM, 0));
    socklen_t length = sizeof *at;
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (bind(made, (struct sockaddr *)at, sizeof(sa_family_t)) != 0 || listen(made, 0) != 0)
        abort();
    if (getsockname(made, (struct sockaddr *)at, &length) != 0)
        abort();
    if (taken && connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)at, length) != 0)
        abort();
    return made;
}

static long wait_for(int kind, int empty, int full, int listening, int caller, struct sockaddr_un *at)
{
    struct mmsghdr many = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    switch (kind) {
    case 0: return read(empty, room, 1);
    case 1: return readv(empty, &part, 1);
    case 2: return recv(empty, room, 1, 0);
    case 3: return recvmsg(empty, &many.msg_hdr, 0);
    case 4: return recvmmsg(empty, &many, 1, 0, NULL);
    case 5: return accept(listening, NULL, NULL);
    case 6: return accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    case 7: return write(full, room, 1);
    case 8: return writev(full, &part, 1);
    case 9: return send(full, room, 1, 0);
    case 10: return sendmsg(full, &many.msg_hdr, 0);
    case 11: return sendmmsg(full, &many, 1, 0);
    default: return connect(caller, (struct sockaddr *)at, sizeof(sa_family_t) + 6);
    }
}

static void *wait_again(void *number)
{
    int kind = (int)(long)number;
    struct sockaddr_un free_one, taken_one;
    int empty = pair(0), full = pair(1), listening = listener(0, &free_one);
    int caller = timed(socket(AF_UNIX, SOCK_STREAM, 0));
    listener(1, &taken_one);
    for (;; rounds++) {
        long answer = wait_for(kind, empty, full, listening, caller, &taken_one);
        if (answer >= 0 || errno != EAGAIN) {
            noticed++;
            fprintf(stderr, "call %d: %ld, %s\n", kind, answer, strerror(errno));
        }
    }
    return NULL;
}

int main(void)
{
    for (long kind = 0; kind < 13; kind++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, wait_again, (void *)kind) != 0)
            return 9;
    }
    puts("ready");
    fflush(stdout);
    while (read(0, &(char){0}, 1) > 0)
        ;
    printf("noticed %ld lively %d\n", (long)noticed, rounds > 0);
    fflush(stdout);
    _exit(noticed != 0);
}
