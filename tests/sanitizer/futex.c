// Preloaded under the thread sanitiser, where the standard library is not instrumented: tells it that whoever wakes a futex comes before whoever
// waited for it, as Condvar, park and the slow path of Mutex rely on. Both pass through a mutex that the sanitiser sees.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>

static pthread_mutex_t meeting_points[256]; // zero is an initialised mutex on Linux

static void meet(long address) {
    pthread_mutex_t *point = &meeting_points[((uint64_t)address * 0x9E3779B97F4A7C15ull) >> 56];
    pthread_mutex_lock(point);
    pthread_mutex_unlock(point);
}

// Stands in for the C library's function of this name, which the standard library calls.
long syscall(long number, ...) {
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) arguments[i] = va_arg(list, long);
    va_end(list);
    long operation = arguments[1] & FUTEX_CMD_MASK;
    if (number == SYS_futex && operation == FUTEX_WAKE) meet(arguments[0]);
    register long fourth __asm__("r10") = arguments[3];
    register long fifth __asm__("r8") = arguments[4];
    register long sixth __asm__("r9") = arguments[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    if (number == SYS_futex && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET)) meet(arguments[0]);
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}
