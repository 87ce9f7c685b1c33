/* Plants known leaks and makes churn that is all freed.
   zoo            plant, print, end
   zoo hold       plant, say "ready", then obey lines on standard input:
                  node N | buffer N | drop | churn; each answered with "done" */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

struct node {
    struct node *next;
    char payload[56];
};

static struct node *nodes;
static void *buffers[64];
static int buffer_count;

NOINLINE static struct node *make_node(struct node *next) {
    struct node *node = malloc(sizeof *node); /* site: make_node */
    memset(node->payload, 7, sizeof node->payload);
    node->next = next;
    return node;
}

NOINLINE static void *make_buffer(void) {
    char *buffer = malloc(1 << 20); /* site: make_buffer */
    memset(buffer, 1, 1 << 20);
    return buffer;
}

NOINLINE static unsigned long churn(unsigned rounds) {
    void *slots[64] = {0};
    unsigned long sum = 0;
    unsigned state = 12345;
    for (unsigned i = 0; i < rounds; i++) {
        state = state * 1103515245u + 12345u;
        unsigned slot = state >> 16 & 63;
        size_t size = 1 + (state >> 8) % 3000;
        free(slots[slot]);
        slots[slot] = i % 5 ? malloc(size) : calloc(1, size);
        *(volatile char *)slots[slot] = (char)i;
        if (i % 7 == 0)
            slots[slot] = realloc(slots[slot], size * 2);
        sum += size;
    }
    for (int i = 0; i < 64; i++)
        free(slots[i]);
    void *big[8];
    for (int i = 0; i < 8; i++)
        big[i] = malloc((size_t)(i + 1) << 18);
    for (int i = 0; i < 8; i++)
        free(big[i]);
    return sum;
}

NOINLINE static void plant(int node_count, int buffers_wanted) {
    for (int i = 0; i < node_count; i++)
        nodes = make_node(nodes);
    for (int i = 0; i < buffers_wanted && buffer_count < 64; i++)
        buffers[buffer_count++] = make_buffer();
}

static void obey(void) {
    char line[64];
    int count;
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "node %d", &count) == 1)
            plant(count, 0);
        else if (sscanf(line, "buffer %d", &count) == 1)
            plant(0, count);
        else if (strcmp(line, "churn\n") == 0)
            churn(20000);
        else
            while (nodes) {
                struct node *next = nodes->next;
                free(nodes);
                nodes = next;
            }
        printf("done\n");
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    unsigned long sum = churn(30000);
    plant(100, 3);
    sum += churn(30000);
    if (argc > 1 && strcmp(argv[1], "hold") == 0)
        obey();
    printf("zoo: %lu\n", sum);
    return 0;
}
