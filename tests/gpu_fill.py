#!/usr/bin/env python3
"""Takes a GPU's memory, but for what it is told to leave, and keeps it until its input ends.

    gpu_fill.py [--device N] [--after MIB] LEAVE_MIB

With --after it first waits until others have taken so much: memory that a plan counted on is gone when it is wanted.
Prints "free BYTES" when it has what it wants. Needs the driver's libcuda.so.1 and nothing else."""
import argparse
import ctypes
import select
import sys
import time

MIB = 1 << 20
cuda = None


def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        sys.exit(f"gpu_fill.py: {name}: error {code} of the driver")


def free_bytes():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def take(leave):
    """In ever smaller pieces: what is free need not be in one."""
    piece, kept = 1024 * MIB, ctypes.c_uint64()
    while piece >= 2 * MIB:
        if free_bytes() < leave + piece or cuda.cuMemAlloc_v2(ctypes.byref(kept), ctypes.c_size_t(piece)):
            piece //= 2


def ended():
    """Has the input ended?"""
    return bool(select.select([sys.stdin], [], [], 0)[0]) and not sys.stdin.readline()


def main():
    global cuda
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("leave", type=int, metavar="LEAVE_MIB")
    p.add_argument("--device", type=int, default=0)
    p.add_argument("--after", type=int, metavar="MIB")
    args = p.parse_args()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as e:
        sys.exit(f"gpu_fill.py: {e}")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), args.device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    if args.after is not None:
        print("waiting", flush=True)
        before = free_bytes()
        while before - free_bytes() < args.after * MIB:
            if ended():
                return
            time.sleep(0.001)
    take(args.leave * MIB)
    print("free", free_bytes(), flush=True)
    while not ended():
        time.sleep(0.05)


main()
