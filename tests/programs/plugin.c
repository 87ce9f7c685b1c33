/* Loaded, used and unloaded again and again by dl.c. */
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) void *plugin_leak(void) {
    return malloc(48); /* site: plugin_leak */
}

static void *table;

__attribute__((constructor)) static void open_plugin(void) {
    table = calloc(10, 100);
}

__attribute__((destructor)) static void close_plugin(void) {
    free(table);
}

int plugin_work(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        char *text = malloc(100 + (size_t)i);
        memset(text, 1, 100 + (size_t)i);
        sum += text[i];
        free(text);
    }
    memset(plugin_leak(), 1, 48);
    return sum;
}
