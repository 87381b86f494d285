/* reply_impl.h - what the files of the reply reader share.
 *
 * reply.c        opens a reader and gives it text
 * reply_text.c   the text between markers, what leads into a call and out of it
 * reply_form.c   the table of forms
 * reply_tools.c  the request's tools: names, and what their parameters may be
 * reply_scan.c   JSON, byte by byte
 * reply_json.c   calls that are JSON: {"name": ..., "arguments": ...}
 * reply_named.c  calls of a name and JSON
 * reply_tags.c   calls whose parameters stand between tags
 * reply_python.c calls as Python writes them
 * reply_channel.c  messages with headers (gpt-oss)
 * reply_grammar.c  grammars of calls
 *
 * The text that isn't settled is buf[pos..n). A state looks at it from `at` on, counted from pos;
 * what it settles it takes away (r_take). A state may ask for more only where more text could
 * change what it does, which is why it doesn't matter how a text is cut. */
#ifndef TS_REPLY_IMPL_H
#define TS_REPLY_IMPL_H

#include <jansson.h>

#include "base/mem.h"
#include "chat/chat.h"
#include "chat/reply.h"

/* --- forms ----------------------------------------------------------------------------- */

typedef enum r_kind { R_NONE, R_JSON, R_NAMED, R_TAGS, R_PYTHON, R_CHANNELS } r_kind;

/* How a call is written. Any of the markers may be NULL. White space may stand between all parts.
 *
 *   R_JSON   section begin [ {"key_name": "NAME", "key_args": {...}}, ... ] end
 *   R_NAMED  section begin skip NAME name_end {...} end  begin ... section_end
 *   R_TAGS   section begin open NAME name_end .. head_end param KEY key_end ATTR attr_end mid VALUE
 *            value_end ... close end ... section_end
 */
typedef struct ts_reply_form {
    const char *name; /* for docs and tests */
    const char *needs[2];
    r_kind kind;
    const char *section, *begin, *end, *section_end;
    const char *key_name, *key_args; /* R_JSON, for grammars: NULL is "name", "arguments"; reading
                                        takes all that are in use                                */
    bool bare;                       /* R_JSON: a call may come without `begin`, as the answer's
                                        beginning                                                */
    bool list;                       /* R_JSON: grammars write a list                            */
    bool keyed;                      /* R_JSON: {"NAME": {...}}                                  */
    const char *skip;                /* R_NAMED: what stands up to and with it is no part of NAME */
    const char *number;              /* R_NAMED: what may stand behind NAME, and what follows it  */
    const char *name_end;
    /* for grammars: what is written behind `begin` or `open`, before and behind NAME, behind the
     * arguments, and between tags */
    const char *gap, *pre, *post, *args_end;
    bool breaks;
    const char *content; /* R_NAMED: the name that stands for text instead of a call */
    const char *open, *head_end, *param, *key_end, *attr_end, *mid, *value_end, *close;
    bool lines;          /* R_TAGS: a line break on either side of a value isn't its own */
    const char *drop[4]; /* markers without meaning for whoever reads the answer */
} ts_reply_form;

typedef struct ts_reply_think {
    const char *needs; /* in the source */
    const char *begin, *end;
    const char *open, *close; /* around the content behind it, or NULL */
} ts_reply_think;

/* Never NULL: what is in no row of the tables thinks as most do and has no calls. */
const ts_reply_form *r_form_find(const char *source, size_t n);
const ts_reply_think *r_think_find(const char *source, size_t n);
/* Row i of the table; NULL behind the last. */
const ts_reply_form *r_form_row(size_t i);

/* Of the template that writes a request with or without tools. */
const ts_chat_speech *r_speech(const ts_chat *c, bool tools);

/* Whether the prompt ends in the beginning of thinking. */
bool r_think_opened(const ts_reply_think *t, const char *prompt, size_t n);

/* --- tools ----------------------------------------------------------------------------- */

typedef struct r_tools {
    json_t *list;  /* the request's */
    json_t *names; /* object: name -> the function's parameters (null: none are told) */
} r_tools;

ts_status r_tools_open(r_tools *t, const char *json, size_t n, ts_error *err);
r_tools r_tools_share(const r_tools *t); /* closed by itself */
void r_tools_close(r_tools *t);

/* What a value may be. */
enum {
    R_STRING = 1,
    R_NUMBER = 2,
    R_INTEGER = 4,
    R_BOOLEAN = 8,
    R_NULL = 16,
    R_OBJECT = 32,
    R_ARRAY = 64,
    R_ANY = 127
};

/* The types of a schema; parameters: what its references are looked up in. */
unsigned r_schema_types(const json_t *parameters, const json_t *schema);
/* What "#/..." refers to; NULL: nothing. */
const json_t *r_refer(const json_t *root, const char *ref);
/* Adds the JSON text of a value that stands as plain text: of another type if it can be. */
ts_status r_value(ts_sb *b, unsigned types, const char *s, size_t n, ts_error *err);

/* Adds the JSON text of a Python value (reply_python.c); false: s[n] is none, or memory is short.
 */
bool r_python(ts_sb *b, const char *s, size_t n);

/* --- JSON, byte by byte ---------------------------------------------------------------- */

enum { R_SCAN_DEPTH = 512 };

typedef enum r_scanned {
    R_MORE,   /* the byte belongs to the value, which goes on                  */
    R_DONE,   /* the byte ends the value                                       */
    R_BEFORE, /* the value ended before the byte: a number                     */
    R_RAW,    /* a control character in a string, which should be escaped      */
    R_BAD,    /* the byte can't stand there                                    */
} r_scanned;

/* Zero: before a value. */
typedef struct r_scan {
    uint64_t object[R_SCAN_DEPTH / 64]; /* bit: the bracket of this depth is { */
    int depth;
    uint8_t state, left;
    bool key;
    const char *word;
} r_scan;

r_scanned r_scan_byte(r_scan *s, char c);

/* --- the reader ------------------------------------------------------------------------ */

typedef enum r_step { R_GO, R_WAIT } r_step;
typedef r_step r_state(ts_reply *r);

enum { R_MARKERS = 16 };

/* What a marker in text does. */
typedef enum r_role {
    R_THINK,
    R_UNTHINK,
    R_ENTER,
    R_BRACE,
    R_HEADER,
    R_TO,
    R_OPEN,
    R_CLOSE,
    R_DROP
} r_role;

typedef struct r_marker {
    const char *s;
    size_t n;
    r_role role;
    int stage; /* R_ENTER: how far into the head of a call it leads */
} r_marker;

struct ts_reply {
    const ts_reply_form *form;
    const ts_reply_think *think;
    r_tools tools;
    bool reasoning;
    r_marker markers[R_MARKERS];
    size_t n_markers;
    uint8_t first[256]; /* bytes that markers begin with */

    char *buf;
    size_t n, cap, pos, at;
    size_t given; /* bytes at pos that the prompt ended in */
    char tail[4]; /* bytes that begin a character */
    size_t n_tail;
    bool last, ended;
    r_state *state;

    ts_sb space;  /* white space that may turn out to stand before a marker     */
    bool fresh;   /* nothing but white space came since the beginning or a call */
    bool trim;    /* white space is dropped until something else comes          */
    bool wrapped; /* the content's opening marker came                          */
    int64_t calls;

    /* a call that is being read */
    int stage;
    size_t from; /* of a name or key, in the same count as `at` */
    r_scan scan;
    char name[TS_REPLY_MAX_NAME + 1];
    bool named, called, list, nested, bare, args_done, may_end;
    int key;        /* R_JSON: what the value is whose turn it is */
    ts_sb args;     /* arguments that came before the name       */
    json_t *values; /* R_TAGS: object, JSON text by parameter   */
    ts_sb param;    /* R_TAGS: the parameter whose value comes */
    unsigned types; /* R_TAGS: what that may be */

    ts_status st;
    ts_error *err;
    ts_reply_fn *fn;
    void *user;
};

static inline const char *r_text(const ts_reply *r)
{
    return r->buf + r->pos;
}

/* What may be looked at, whole characters: a call is never held beyond it. */
static inline size_t r_left(const ts_reply *r)
{
    size_t n = r->n - r->pos;
    if (n <= TS_REPLY_MAX_HELD)
        return n;
    n = TS_REPLY_MAX_HELD;
    while (((uint8_t)r->buf[r->pos + n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* Whether more could come into sight. */
static inline bool r_may_wait(const ts_reply *r)
{
    return !r->last && r->n - r->pos < TS_REPLY_MAX_HELD;
}

/* Whether nothing will follow what may be looked at. */
static inline bool r_is_end(const ts_reply *r)
{
    return r->last && r->n - r->pos <= TS_REPLY_MAX_HELD;
}

static inline bool r_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Whether `marker` stands at offset `at`: 1; 0: no; -1: more text will tell. NULL stands nowhere.
 */
int r_match(const ts_reply *r, size_t at, const char *marker);
/* Moves r->at behind white space; false at the end of the text. */
bool r_skip(ts_reply *r);
/* Takes n bytes away; r->at is 0 then. */
void r_take(ts_reply *r, size_t n);
/* Goes to a state in which nothing is looked at yet. */
r_step r_goto(ts_reply *r, r_state *state);
/* No memory, or what the receiver said. */
r_step r_fail(ts_reply *r, ts_status st);
r_step r_no_memory(ts_reply *r);

/* Hands a part over; nothing of an empty text. */
void r_part(ts_reply *r, ts_reply_kind kind, const char *s, size_t n);
/* Text of the content or, in thinking, of the reasoning. */
void r_emit(ts_reply *r, ts_reply_kind kind, const char *s, size_t n);
/* White space around a marker isn't content. */
void r_boundary(ts_reply *r);
/* What was taken for a call up to r->at is content; reading goes on behind it. */
r_step r_no_call(ts_reply *r);
/* The text has ended, or may be held no longer: no call. Otherwise waits. */
r_step r_wait(ts_reply *r);
/* Sets r->name to a tool's name; false: there is no such tool. */
bool r_set_name(ts_reply *r, const char *s, size_t n);
/* The call of r->name begins. */
void r_begin_call(ts_reply *r);
void r_arguments(ts_reply *r, const char *s, size_t n);
/* Arguments as they come, from r->at on: handed over, or kept in r->args while the name isn't
 * known. R_MORE: the text ended; R_DONE; R_BAD: they are broken at r->at. */
r_scanned r_stream(ts_reply *r);
/* Whether a marker that ends calls stands at `at`, as r_match; *n: its length. */
int r_closer(const ts_reply *r, size_t at, size_t *n);

r_step r_in_text(ts_reply *r);
r_step r_in_thinking(ts_reply *r);
/* Behind a call: white space, closing markers. */
r_step r_behind(ts_reply *r);
r_step r_enter(ts_reply *r, int stage, size_t at);

r_step r_json_begin(ts_reply *r);   /* at the list or object        */
r_step r_named_begin(ts_reply *r);  /* at the name                  */
r_step r_named_args(ts_reply *r);   /* behind it                    */
r_step r_tags_begin(ts_reply *r);   /* at the name, behind `open`   */
r_step r_python_begin(ts_reply *r); /* behind `begin`             */
r_step r_channel_begin(ts_reply *r);

#endif
