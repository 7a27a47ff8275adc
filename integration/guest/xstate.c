/* Preloaded into user-mode Linux, which has room for 2,696 bytes of a thread's extended state. Where the processor has more (AMX),
   the host's kernel refuses to set a part of it (EFAULT), and the guest dies with its first process. So the part is completed with
   zeros, which is the state of what is not in use; the host takes as much as it has. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*ptrace_function)(long, pid_t, void *, void *);

static char state[65536] __attribute__((aligned(64)));

/* The C library's is declared with variable arguments; its callers give all four. */
long completed(long request, pid_t pid, void *address, void *data) __asm__("ptrace");

long completed(long request, pid_t pid, void *address, void *data) {
    static ptrace_function next;
    if (next == NULL) {
        next = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
        if (next == NULL) {
            errno = ENOSYS;
            return -1;
        }
    }
    if (request == PTRACE_SETREGSET && (size_t)address == NT_X86_XSTATE) {
        const struct iovec *part = data;
        struct iovec whole = {state, sizeof state};
        if (part->iov_len < sizeof state) {
            memcpy(state, part->iov_base, part->iov_len);
            return next(request, pid, address, &whole);
        }
    }
    return next(request, pid, address, data);
}
