/* Allocates where a program is already ending. late exit | thread | main */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_key_t key;
static void *kept;

static void churn(void) {
    for (int i = 0; i < 500; i++) {
        char *block = malloc((size_t)i * 13 + 1);
        block[0] = 1;
        free(realloc(block, (size_t)i * 20 + 1));
    }
}

static void last(void) {
    churn();
    free(kept);
    kept = malloc(100);
    printf("atexit: ok\n");
}

static void first(void) {
    churn();
    kept = strdup("kept until the last handler");
}

__attribute__((destructor)) static void destroyed(void) {
    churn();
    free(kept);
    fputs("destructor: ok\n", stdout);
}

/* Runs as often as glibc allows, each time after other destructors. */
static void on_thread_end(void *value) {
    int *round = value;
    churn();
    if (*round < 3) {
        int *next = malloc(sizeof *next);
        *next = *round + 1;
        pthread_setspecific(key, next);
    }
    free(round);
}

static void *thread(void *unused) {
    int *round = malloc(sizeof *round);
    *round = 0;
    pthread_setspecific(key, round);
    churn();
    return unused;
}

static void *outlive_main(void *unused) {
    usleep(50000);
    churn();
    printf("after main's pthread_exit: ok\n");
    return unused;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "exit";
    pthread_t one;
    pthread_key_create(&key, on_thread_end);
    if (strcmp(what, "exit") == 0) {
        atexit(last);
        atexit(first);
    } else if (strcmp(what, "thread") == 0) {
        for (int i = 0; i < 20; i++) {
            pthread_create(&one, NULL, thread, NULL);
            pthread_join(one, NULL);
        }
        printf("threads: ok\n");
    } else {
        thread(NULL);
        pthread_create(&one, NULL, outlive_main, NULL);
        pthread_exit(NULL);
    }
    return 0;
}
