/* deep [DEPTH]: fifty thousand frames or so many, with a block held by every hundredth. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) static long descend(int depth) {
    char *block = depth % 100 == 0 ? malloc(64) : NULL;
    long below = depth ? descend(depth - 1) : 0;
    if (block)
        block[0] = 1;
    free(block);
    return below + 1;
}

int main(int argc, char **argv) {
    int frames = argc > 1 ? atoi(argv[1]) : 50000;
    long depth = 0;
    for (int i = 0; i < 3; i++)
        depth += descend(frames);
    printf("deep: %ld\n", depth);
    return 0;
}
