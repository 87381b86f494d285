/* impl.h - what the files of the interpreter share.
 *
 *   render.c     open, render: the entries
 *   arena.c      memory, limits, failing; text being built
 *   lex.c        template text to tokens
 *   parse.c      tokens to a tree: expressions;  parse_stmt.c: statements
 *   eval.c       expressions;  call.c: calls and macros;  exec.c: statements
 *   value.c      truth, equality, order, dicts;  iter.c: iteration, generators
 *   text.c       strings;  print.c: str() and repr();  format.c: % and format()
 *   number.c     arithmetic, floats as text;  unicode.c: case and classes
 *   filter*.c, is.c, method*.c, global.c   what templates call by name
 *   json.c       to and from JSON;  time.c: strftime
 *
 * A failure leaves by longjmp to the entry (j_fail doesn't return). That is safe because everything
 * a run makes lies in its arena and nothing is held anywhere else; and it keeps a tree walker
 * readable: functions return values. */
#ifndef TS_JINJA_IMPL_H
#define TS_JINJA_IMPL_H

#include <setjmp.h>

#include "base/mem.h"
#include "jinja/jinja.h"

/* --- memory ---------------------------------------------------------------- */

typedef struct j_block j_block;

typedef struct j_arena {
    j_block *block; /* the newest, where allocation goes on */
    size_t total;   /* bytes of all blocks                  */
} j_arena;

void j_arena_free(j_arena *a);

/* --- values ---------------------------------------------------------------- */

typedef enum j_kind {
    J_MISSING, /* an argument that wasn't given; never seen by a template */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_RANGE,
    J_VIEW, /* dict.keys(), .values(), .items() */
    J_GEN,  /* what is computed while it is iterated, once */
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_METHOD,
    J_FUNC,
    J_CYCLER,
    J_JOINER,
} j_kind;

typedef struct j_str j_str;
typedef struct j_list j_list;
typedef struct j_dict j_dict;
typedef struct j_range j_range;
typedef struct j_view j_view;
typedef struct j_gen j_gen;
typedef struct j_undef j_undef;
typedef struct j_loop j_loop;
typedef struct j_macro j_macro;
typedef struct j_bound j_bound;
typedef struct j_cycler j_cycler;
typedef struct j_fn j_fn;

typedef struct j_value {
    j_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const j_str *s;
        const j_list *l; /* LIST, TUPLE */
        j_dict *d;       /* DICT, NAMESPACE; only the latter is ever changed */
        const j_range *r;
        const j_view *v;
        j_gen *g;
        const j_undef *u;
        j_loop *loop;
        const j_macro *m;
        const j_bound *bound;
        const j_fn *fn;
        j_cycler *cycler;
    } u;
} j_value;

/* UTF-8. Parts of a string share its bytes. */
struct j_str {
    const char *s;
    size_t n;
    size_t chars;        /* code points                                       */
    const uint8_t *mark; /* [n] whose byte it is; NULL: all are `from`        */
    uint8_t from;        /* J_TEMPLATE, J_CALLER                              */
    bool markup;         /* markupsafe.Markup: what `safe` and `escape` give  */
};

enum { J_TEMPLATE = 0, J_CALLER = 1 };

struct j_list {
    j_value *v;
    size_t n;
};

typedef struct j_pair {
    j_value key, value;
    uint64_t hash;
} j_pair;

/* In order of insertion; an index over the hashes once it has more than a few. */
struct j_dict {
    j_pair *p;
    size_t n, cap;
    uint32_t *slot; /* [n_slots] 1 + place in p, 0 = free */
    size_t n_slots;
};

struct j_range {
    int64_t start, step, n;
    int64_t stop; /* as it was given, for repr() */
};

typedef enum j_view_of { J_KEYS, J_VALUES, J_ITEMS } j_view_of;

struct j_view {
    const j_dict *d;
    j_view_of of;
};

/* Why something is undefined, for the sentence. */
struct j_undef {
    enum { J_NO_NAME, J_NO_ATTR, J_HINT, J_UNSAFE } why;
    j_kind of;
    const char *text; /* the name, or the hint */
};

/* A method or attribute bound to what it was taken from. */
struct j_bound {
    j_value self;
    const j_fn *fn;
};

struct j_cycler {
    const j_list *items;
    const j_str *sep; /* of a joiner */
    size_t pos;
};

/* --- the tree --------------------------------------------------------------- */

typedef enum j_op {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT, /* kids: key, value, key, value ... */
    N_ATTR,
    N_ITEM,
    N_SLICE, /* a[b:c:star] */
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_AND,
    N_OR,
    N_COND,    /* a if b else c */
    N_COMPARE, /* a, then kids with their `op` */
    N_CONCAT,
    N_ADD,
    N_SUB,
    N_MUL,
    N_DIV,
    N_FLOORDIV,
    N_MOD,
    N_POW,
    N_NEG,
    N_POS,
    N_NSREF, /* only assigned to */
    /* statements */
    N_DATA,
    N_PRINT,
    N_IF,  /* a; kids; other */
    N_FOR, /* a in b if c; kids; other */
    N_SET,
    N_SET_BLOCK, /* a | b; kids */
    N_MACRO,
    N_CALL_BLOCK, /* a: the call, b: an N_MACRO of the body */
    N_FILTER_BLOCK,
    N_WITH, /* other: targets; args: values */
    N_GENERATION,
    N_BREAK,
    N_CONTINUE,
} j_op;

typedef enum j_cmp { C_EQ, C_NE, C_LT, C_LE, C_GT, C_GE, C_IN, C_NOT_IN } j_cmp;

typedef struct j_node j_node;

typedef struct j_nodes {
    j_node **v;
    size_t n, cap;
} j_nodes;

typedef struct j_kwarg {
    const j_str *name;
    j_node *value;
} j_kwarg;

struct j_node {
    j_op op;
    int line;
    bool flag;         /* N_FOR: recursive; N_TEST, N_FILTER: nobody knows that name */
    uint8_t cmp;       /* of an operand of N_COMPARE                           */
    uint8_t catches;   /* N_MACRO: J_CATCH_*                                   */
    const j_str *name; /* one object a name: compared by pointer               */
    j_value value;     /* N_CONST, N_DATA                                      */
    j_node *a, *b, *c;
    j_nodes kids, other;
    j_nodes args; /* positional; of N_MACRO the names                     */
    j_kwarg *kw;  /* [n_kw] keywords; of N_MACRO its defaults, for the last names */
    size_t n_kw;
    j_node *star, *star2; /* *args, **kwargs */
    const j_fn *fn;
};

enum { J_CATCH_CALLER = 1, J_CATCH_VARARGS = 2, J_CATCH_KWARGS = 4 };

struct ts_jinja {
    j_arena arena;
    const char *name;
    j_nodes body;
    const j_str *loop, *caller, *varargs, *kwargs; /* names */
};

/* --- a run ------------------------------------------------------------------- */

typedef struct j_buf {
    char *s;
    uint8_t *mark; /* NULL: all are `from` */
    size_t n, cap, chars;
    uint8_t from;
} j_buf;

typedef struct j_var {
    const j_str *name;
    j_value value;
} j_var;

typedef struct j_scope {
    struct j_scope *up;
    j_var *v;
    size_t n, cap;
    bool kept; /* a macro remembers it; otherwise a loop uses one for all its rounds */
} j_scope;

struct j_macro {
    const j_node *node;
    j_scope *scope;
    const char *name; /* NULL: the body of a call block */
};

typedef struct j_run {
    j_arena *arena;
    ts_error *err;
    ts_status status;
    const char *name; /* of the template */
    int line;
    ts_jinja_limits limits;
    uint64_t steps;
    int depth;
    const ts_jinja *t;
    j_dict *vars;
    const struct tm *now;
    j_scope *scope;
    j_buf *out;
    const j_str *block; /* the text of a block that is being filtered */
    jmp_buf leave;
} j_run;

/* arena.c */
/* Does the work, to its end or to a failure. */
ts_status j_guard(j_run *j, void (*work)(j_run *j, const void *arg), const void *arg);
_Noreturn void j_fail(j_run *j, const char *fmt, ...) TS_PRINTF(2, 3);
_Noreturn void j_no_memory(j_run *j);
void *j_alloc(j_run *j, size_t n); /* aligned, not zeroed */
void *j_zalloc(j_run *j, size_t n);
void *j_array(j_run *j, size_t n, size_t size);
/* Room for one more element of an array that doubles; contents are kept. */
void *j_more(j_run *j, void *p, size_t n, size_t *cap, size_t size);
void j_step(j_run *j, uint64_t n);
void j_enter(j_run *j); /* one level deeper; j->depth-- leaves it */
const char *j_cstr(j_run *j, const char *fmt, ...) TS_PRINTF(2, 3);

void j_buf_add(j_run *j, j_buf *b, const char *s, size_t n, uint8_t from); /* whole characters */
void j_buf_puts(j_run *j, j_buf *b, const char *s);                        /* the template's */
void j_buf_str(j_run *j, j_buf *b, const j_str *s);
void j_buf_char(j_run *j, j_buf *b, uint32_t cp, uint8_t from);
const j_str *j_buf_done(j_run *j, j_buf *b);

/* --- values: making ------------------------------------------------------------ */

static inline j_value j_none(void)
{
    return (j_value){.kind = J_NONE};
}

static inline j_value j_bool(bool b)
{
    return (j_value){.kind = J_BOOL, .u.b = b};
}

static inline j_value j_int(int64_t i)
{
    return (j_value){.kind = J_INT, .u.i = i};
}

static inline j_value j_float(double f)
{
    return (j_value){.kind = J_FLOAT, .u.f = f};
}

static inline j_value j_strv(const j_str *s)
{
    return (j_value){.kind = J_STR, .u.s = s};
}

static inline j_value j_listv(j_kind kind, const j_list *l)
{
    return (j_value){.kind = kind, .u.l = l};
}

static inline j_value j_dictv(j_dict *d)
{
    return (j_value){.kind = J_DICT, .u.d = d};
}

/* value.c */
j_list *j_list_new(j_run *j, size_t n);
j_value j_pairv(j_run *j, j_value a, j_value b); /* a tuple */
j_value j_undefined(j_run *j, const char *hint);
j_value j_undefined_name(j_run *j, const j_str *name);
j_value j_undefined_attr(j_run *j, j_value of, const char *name, bool unsafe);
_Noreturn void j_fail_undefined(j_run *j, j_value v);
const char *j_type_name(j_value v); /* as Python names it */
bool j_truth(j_run *j, j_value v);
bool j_equal(j_run *j, j_value a, j_value b);
bool j_same(j_value a, j_value b); /* Python's `is` */
/* Less than 0, 0, more than 0; what can't be ordered is a failure that names `op`. *unordered (may
 * be NULL): one is not a number. */
int j_order(j_run *j, j_value a, j_value b, const char *op, bool *unordered);
bool j_contains(j_run *j, j_value in, j_value what);
bool j_is_number(j_value v); /* bool, int, float */
double j_number(j_value v);
bool j_integer(j_value v, int64_t *i); /* bool or int */
/* An argument that must be an int; `what` names it. */
int64_t j_want_int(j_run *j, j_value v, const char *what);
const j_str *j_want_str(j_run *j, j_value v, const char *what);

bool j_hashable(j_run *j, j_value v);
j_dict *j_dict_new(j_run *j);
void j_dict_set(j_run *j, j_dict *d, j_value key, j_value value);
const j_value *j_dict_get(j_run *j, const j_dict *d, j_value key); /* NULL = not there */
const j_value *j_dict_find(j_run *j, const j_dict *d, const j_str *key);

/* iter.c */
typedef struct j_iter {
    j_value of;
    size_t i;    /* next element   */
    size_t byte; /* of a string    */
} j_iter;

typedef enum j_gen_kind {
    G_MAP_ATTR,
    G_MAP_FILTER,
    G_SELECT,
    G_ITEMS,
    G_UNIQUE,
    G_BATCH,
    G_SLICE,
    G_REVERSED,
    G_FOR_IF,
} j_gen_kind;

typedef struct j_args j_args;

struct j_gen {
    j_gen_kind kind;
    j_value over; /* what it goes through; looked at when somebody first asks */
    j_iter it;
    bool begun, done;
    bool negate, by_attr; /* G_SELECT */
    j_value attr, fill;
    const j_fn *fn; /* a filter or test; NULL: truth */
    const j_args *args;
    j_value seen;       /* G_UNIQUE: a dict; G_SLICE: all of it */
    int64_t n, at, off; /* G_BATCH, G_SLICE, G_REVERSED */
    bool case_sensitive;
    j_scope *scope, *inner; /* G_FOR_IF: around the loop, of the condition */
    const j_node *node;
};

bool j_iterable(j_value v);
void j_iter_init(j_run *j, j_iter *it, j_value of); /* fails if it can't be iterated */
bool j_next(j_run *j, j_iter *it, j_value *out);
bool j_gen_next(j_run *j, j_gen *g, j_value *out);
const j_list *j_to_list(j_run *j, j_value v);
/* len(); false if it has none. */
bool j_length(j_run *j, j_value v, size_t *n);

/* --- text ------------------------------------------------------------------------ */

/* text.c */
const j_str *j_str_new(j_run *j, const char *s, size_t n, uint8_t from); /* not copied */
const j_str *j_text(j_run *j, const char *s);                       /* the template's; not copied */
const j_str *j_sub(j_run *j, const j_str *s, size_t pos, size_t n); /* bytes */
const j_str *j_as_markup(j_run *j, const j_str *s, bool markup);
const j_str *j_concat(j_run *j, const j_str *a, const j_str *b);
size_t j_byte_of(const j_str *s, size_t chr); /* byte where a character starts */
size_t j_chars(const char *s, size_t n);
bool j_str_eq(const j_str *a, const char *b);
bool j_str_same(const j_str *a, const j_str *b);
uint8_t j_mark_at(const j_str *s, size_t byte);
/* For "%.*s" in sentences. */
#define J_SHOWN(str) (int)((str)->n < 60 ? (str)->n : 60), (str)->s
/* The first place at or after byte `from`, or the last; -1 = none. */
int64_t j_find(j_run *j, const j_str *s, const j_str *what, size_t from);
int64_t j_rfind(j_run *j, const j_str *s, const j_str *what, size_t end);
const j_str *j_strip(j_run *j, const j_str *s, const j_str *set, bool left, bool right);
const j_str *j_replace(j_run *j, const j_str *s, const j_str *old, const j_str *new_, int64_t most);
const j_str *j_escape(j_run *j, j_value v);
const j_str *j_repeat(j_run *j, const j_str *s, int64_t n);
const j_list *j_splitlines(j_run *j, const j_str *s, bool keep);
j_value j_slice(j_run *j, j_value v, j_value start, j_value stop, j_value step);

/* print.c */
void j_print(j_run *j, j_buf *b, j_value v); /* str()  */
void j_repr(j_run *j, j_buf *b, j_value v);  /* repr() */
const j_str *j_to_str(j_run *j, j_value v);  /* markup stays markup */
const j_str *j_repr_str(j_run *j, j_value v);

/* unicode.c */
typedef enum j_case { J_LOWER, J_UPPER, J_TITLE } j_case;

uint32_t j_char_at(const char *s, size_t n, size_t *len); /* of valid UTF-8 */
bool j_is_space(uint32_t cp);
bool j_is_alpha(uint32_t cp);
bool j_is_digit(uint32_t cp);
bool j_is_printable(uint32_t cp);
bool j_is_lower(uint32_t cp);
bool j_is_upper(uint32_t cp);
/* There is a letter with a case, and all are of this one. */
bool j_cased(const j_str *s, bool (*is)(uint32_t cp), bool (*other)(uint32_t cp));
size_t j_map_case(uint32_t cp, j_case to, uint32_t out[3]);
const j_str *j_recase(j_run *j, const j_str *s, j_case to);
const j_str *j_capitalize(j_run *j, const j_str *s);
size_t j_trim_left(const char *s, size_t n);  /* bytes of white space at the beginning */
size_t j_trim_right(const char *s, size_t n); /* bytes left without white space at the end */

/* number.c */
/* snprintf of one double by "%.*X" whatever the locale; `kind` is f, e or g. */
const char *j_float_fixed(j_run *j, double v, char kind, int precision);
bool j_parse_float(const char *s, size_t n,
                   double *out); /* digits[.digits][e+-digits], nothing else */
bool j_parse_int(const char *s, size_t n, int base, int64_t *out);
j_value j_arith(j_run *j, j_op op, j_value a, j_value b);
j_value j_sign(j_run *j, j_op op, j_value v);
j_value j_round(j_run *j, j_value v, int64_t precision, const j_str *method);
bool j_to_int(j_value v, int64_t base, int64_t *out); /* int(); false: it can't be */
bool j_to_float(j_value v, double *out);              /* float() */
int64_t j_float_to_int(j_run *j, double f);

/* format.c */
const j_str *j_percent(j_run *j, const j_str *fmt, j_value args);
const j_str *j_format(j_run *j, const j_str *fmt, const j_args *args);

/* json.c */
const j_str *j_tojson(j_run *j, j_value v, bool ascii, j_value indent, j_value separators,
                      bool sort_keys);
j_value j_from_json(j_run *j, const json_t *v, uint8_t from);

/* time.c */
const j_str *j_strftime(j_run *j, const j_str *fmt);

/* --- calling ----------------------------------------------------------------------- */

struct j_args {
    j_value *v;
    size_t n;
    j_var *kw;
    size_t n_kw;
};

/* a[] holds the parameters in the order of `params`, J_MISSING where none was given. */
typedef j_value j_native(j_run *j, j_value self, j_value *a, const j_args *args);
/* Of a native that takes no parameters (a) or all of them by `a` (args). */
#define UNUSED(a) (void)(a), (void)args

struct j_fn {
    const char *name;
    j_native *call;
    const char *params; /* "old,new,count"; "*": any, taken from args */
    int required;
};

enum { J_PARAMS = 8 };

/* call.c */
j_value j_call(j_run *j, j_value callee, const j_args *args, int line);
j_value j_call_native(j_run *j, const j_fn *fn, j_value self, const j_args *args);
const j_fn *j_fn_find(const j_fn *table, size_t n, const char *name, size_t len);

const j_fn *j_filter(const char *name, size_t n);
const j_fn *j_test(const char *name, size_t n);
const j_fn *j_global(const char *name, size_t n);
const j_fn *j_method(j_value self, const char *name, size_t n);
bool j_unsafe_method(j_value self, const char *name);

/* eval.c */
j_value j_eval(j_run *j, const j_node *n);
j_value j_attr(j_run *j, j_value of, const j_str *name);
j_value j_item(j_run *j, j_value of, j_value key);
/* By "a.b.0", as filters take attributes; J_NONE or missing gives `of` itself. */
j_value j_path(j_run *j, j_value of, j_value path);

/* exec.c */
typedef enum j_flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } j_flow;

j_flow j_exec(j_run *j, const j_nodes *body);
const j_str *j_capture(j_run *j, const j_nodes *body); /* the text it writes */
j_scope *j_scope_new(j_run *j, j_scope *up);
/* An empty one: `used` again (may be NULL) unless something keeps it. */
j_scope *j_scope_again(j_run *j, j_scope *used, j_scope *up);
void j_scope_set(j_run *j, j_scope *s, const j_str *name, j_value v);
void j_assign(j_run *j, const j_node *target, j_value v);
j_value j_loop_attr(j_run *j, j_loop *l, const char *name);
j_value j_loop_recurse(j_run *j, j_loop *l, const j_args *args);
int64_t j_loop_index0(const j_loop *l);
j_value j_loop_changed(j_run *j, j_loop *l, const j_args *args);
size_t j_loop_length(j_run *j, j_loop *l);
void j_check_attr_name(j_run *j, const j_str *name); /* of a namespace */

/* parse.c, parse_stmt.c: see parse.h */

#endif
