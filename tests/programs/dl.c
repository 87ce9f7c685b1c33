/* dl PLUGIN: dlopen and dlclose it fifty times; each time it leaks one block. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    int sum = 0;
    for (int i = 0; argc > 1 && i < 50; i++) {
        void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!plugin) {
            printf("dlopen: %s\n", dlerror());
            return 1;
        }
        int (*work)(int) = (int (*)(int))dlsym(plugin, "plugin_work");
        sum += work(100);
        if (dlclose(plugin) != 0)
            return 1;
    }
    void *missing = dlopen("/nonexistent/plugin.so", RTLD_NOW);
    printf("dl: %d, missing: %s\n", sum, missing || !dlerror() ? "loaded?" : "refused");
    return 0;
}
