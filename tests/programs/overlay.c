/* A plugin in two versions, built with -DOVERLAY=first -DROOM=256 and so on: the same
   addresses, other names and other unwind rules. */
#include <stdlib.h>

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)

__attribute__((noinline)) static void *NAME(OVERLAY, _leak)(size_t size) {
    volatile char room[ROOM];
    room[0] = 1;
    void *block = malloc(size);
    room[1] = 2;
    return block;
}

void *overlay_work(size_t size) {
    volatile char room[ROOM * 2];
    room[0] = 1;
    void *block = NAME(OVERLAY, _leak)(size);
    room[1] = 2;
    return block;
}
