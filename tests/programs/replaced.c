/* replaced ROUNDS PLUGIN...: loads the plugins in turn, each where the one before
   lay; each leaves one block of 1000 * (its number + 1) bytes a round. With "busy" behind
   them other threads allocate through the last plugin, which stays, all the while. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *(*work_t)(size_t);

static volatile int stop;
static work_t steady;

static work_t load(const char *path, void **plugin) {
    *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*plugin) {
        printf("dlopen: %s\n", dlerror());
        exit(1);
    }
    return (work_t)dlsym(*plugin, "overlay_work");
}

static void *churn(void *argument) {
    (void)argument;
    while (!stop) {
        char *block = steady(77);
        block[0] = 1;
        free(block);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = atoi(argv[1]), plugins = argc - 2;
    int busy = strcmp(argv[argc - 1], "busy") == 0;
    pthread_t threads[2];
    void *plugin;
    if (busy) {
        plugins -= 2;
        steady = load(argv[argc - 2], &plugin);
        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], NULL, churn, NULL);
    }
    work_t first = NULL;
    int moved = 0;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < plugins; i++) {
            work_t work = load(argv[2 + i], &plugin);
            moved += first && work != first;
            first = first ? first : work;
            memset(work(1000 * (size_t)(i + 1)), 1, 1000);
            dlclose(plugin);
        }
    stop = 1;
    for (int i = 0; busy && i < 2; i++)
        pthread_join(threads[i], NULL);
    printf("replaced: %s\n", moved ? "elsewhere" : "in place");
    return 0;
}
