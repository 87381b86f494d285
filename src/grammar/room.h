/* room.h - arrays that grow. */
#ifndef TS_ROOM_H
#define TS_ROOM_H

#include <stdlib.h>

/* Room for one more element of an array that doubles; false when memory is short. */
#define TS_ROOM(p, n, cap)                                                                         \
    (__extension__({                                                                               \
        bool room_ = (n) < (cap);                                                                  \
        if (!room_) {                                                                              \
            size_t want_ = (cap) ? 2 * (cap) : 16;                                                 \
            void *more_ = realloc((p), want_ * sizeof *(p));                                       \
            if (more_) {                                                                           \
                (p) = more_;                                                                       \
                (cap) = want_;                                                                     \
                room_ = true;                                                                      \
            }                                                                                      \
        }                                                                                          \
        room_;                                                                                     \
    }))

#endif
