/* A library to preload that counts what is mapped by its own functions, and says so at the end. */
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int maps, unmaps, remaps;

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    maps++;
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

int munmap(void *address, size_t bytes) {
    unmaps++;
    return (int)syscall(SYS_munmap, address, bytes);
}

void *mremap(void *address, size_t bytes, size_t new_bytes, int flags, ...) {
    void *target = NULL;
    if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
        va_list rest;
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
    }
    remaps++;
    return (void *)syscall(SYS_mremap, address, bytes, new_bytes, flags, target);
}

__attribute__((destructor)) static void tell(void) {
    dprintf(2, "counted %d %d %d\n", maps, unmaps, remaps);
}
