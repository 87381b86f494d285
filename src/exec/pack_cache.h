/* pack_cache.h - a file that keeps a packed arena for the next start.
 *
 * A directory holds one file for each (model, ISA), named after them. The file (little-endian):
 *
 *     0      header, 4096 bytes: magic, format, key of the source, sizes, checksums; zeros
 *     4096   payload: the packed arena, byte for byte as the plan lays it out
 *
 * Nothing in the file is believed. It is used only if it belongs to this user and nobody else may
 * write to it; if its header's checksum holds; if its key is the one computed from this model,
 * ISA, plan and these packed layouts; if the model file is the same as then (its stamp: inode,
 * size, times) or holds the same bytes; and if the checksum over the whole payload holds
 * for the bytes that were read. They are read into the arena, not mapped: file mappings get no
 * huge pages, and what has been checked can't change afterwards. Anything else is reported, and
 * rebuilt.
 *
 * The checksums (base/hash.h) find accidents and edits, not a forger: the directory has the trust
 * of the user's own files.
 *
 * Writing: a temporary name (.part), locked while its writer lives, payload first, the header last,
 * fsync, rename. Processes that start together each write their own and the last rename wins. What
 * a killed writer leaves behind is unlocked and removed by the next start. */
#ifndef TS_PACK_CACHE_H
#define TS_PACK_CACHE_H

#include "exec/load.h"

/* Raise it when the bytes that a layout packs change in a way ts_pack_key_make's sample of each
 * layout wouldn't show. */
#define TS_PACK_FORMAT 1

/* What a packed arena was made from, as far as it can be said without reading all of it. */
typedef struct ts_pack_key {
    uint64_t isa;
    uint64_t source_bytes; /* of all shards                                                */
    uint64_t head;         /* hash of the shards' headers, metadata, tensor tables         */
    uint64_t sample;       /* hash of 64 pages of every shard's tensor data                */
    uint64_t layout;       /* hash of the weights' places and layouts, and of what each layout
                              makes of a fixed matrix                                      */
    uint64_t packed;       /* bytes of the arena                                           */
} ts_pack_key;

/* source_bytes, head and sample of a key that is zero. */
void ts_pack_key_source(ts_pack_key *key, const ts_gguf *g);

ts_status ts_pack_key_make(ts_pack_key *key, const ts_plan *p, const ts_model *m, ts_error *err);

/* The first block of the file. Padded with zeros to TS_PACK_PAGE. */
typedef struct ts_pack_header {
    char magic[8];
    uint64_t format;
    ts_pack_key key;
    uint64_t content;  /* sum of the hashes of all packed pieces of the source   */
    uint64_t payload;  /* sum of the hashes of the payload's blocks              */
    uint64_t checksum; /* of the page without this and what follows              */
    /* Of the model file this was last compared with. Not part of the checksum: it may be renewed.
     */
    uint64_t stamp, stamp_check;
} ts_pack_header;

#define TS_PACK_PAGE 4096

typedef struct ts_pack_cache {
    int dir;          /* its directory; -1: none                             */
    int fd;           /* the file found; -1: none                            */
    char name[64];    /* of the file in the directory                        */
    const char *path; /* of the directory, for sentences                     */
    const ts_log *log;
    uint64_t stamp;   /* of the model file as it is now                      */
    ts_pack_key key;  /* what the file must have been made from              */
    ts_pack_header h; /* of the file found                                   */
} ts_pack_cache;

/* Opens the directory, which is made (0700) if only its last name is missing, and removes what
 * killed writers left. c->fd is the file if there is one with a sound header and the right key;
 * one that isn't is reported. */
ts_status ts_pack_cache_open(ts_pack_cache *c, const char *dir, const ts_pack_key *key,
                             uint64_t stamp, const ts_log *log, ts_error *err);
void ts_pack_cache_close(ts_pack_cache *c);

/* True: the model file is, by its stamp, the one that c->fd was made from. */
bool ts_pack_cache_same_file(const ts_pack_cache *c);

/* The model file's bytes have been hashed: true when they are those that c->fd was made from, whose
 * stamp is then renewed; else it is given up. */
bool ts_pack_cache_same_content(ts_pack_cache *c, uint64_t content);

/* Reads the payload of c->fd to dst[key.packed] with all threads; true if every byte is what was
 * written. False: it is given up, or p->stop. */
bool ts_pack_cache_read(ts_pack_cache *c, ts_pool *pool, uint8_t *dst, ts_progress *p);

/* Writes src[key.packed]. What goes wrong is a warning. */
void ts_pack_cache_write(ts_pack_cache *c, ts_pool *pool, const uint8_t *src, uint64_t content,
                         ts_progress *p);

#endif
