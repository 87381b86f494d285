/* tok_find.c - where special tokens stand in a text.
 *
 * The rule (llama.cpp's): the longest special token takes its places first, from left to right,
 * then the next longest in what is left, and so on. Done as it reads that is a search of the whole
 * text for each of thousands of tokens. Here an automaton finds, in one pass from the end of the
 * text, the longest special token that starts at each byte; a heap hands these out by
 * priority; one that runs into a place already taken shrinks to the longest special token that
 * still fits before it. */
#include <stdlib.h>
#include <string.h>

#include "model/tok_internal.h"

/* --- the automaton -------------------------------------------------------- */

typedef struct by_length {
    size_t len;
    int32_t id;
} by_length;

static int longer_first(const void *pa, const void *pb)
{
    const by_length *a = pa, *b = pb;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Fills t->special; *bytes = the sum of their lengths. */
static ts_status sort_special(ts_tokenizer *t, size_t *bytes, ts_error *err)
{
    *bytes = 0;
    size_t n = 0;
    for (int32_t i = 0; i < t->n; i++)
        if ((t->attr[i] & TOK_SPECIAL) && t->text[i].n > 0) {
            *bytes += t->text[i].n;
            n++;
        }
    if (*bytes > TOK_MAX_SPECIAL)
        return ts_fail(err, TS_UNSUPPORTED,
                       "%s: the texts of its special tokens are %zu bytes long, more than %d",
                       ts_gguf_path(t->g), *bytes, TOK_MAX_SPECIAL);
    by_length *order = ts_calloc(n, sizeof *order);
    t->special = ts_calloc(n, sizeof *t->special);
    if (!order || !t->special) {
        free(order);
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu special tokens", n);
    }
    t->n_special = 0;
    for (int32_t i = 0; i < t->n; i++)
        if ((t->attr[i] & TOK_SPECIAL) && t->text[i].n > 0)
            order[t->n_special++] = (by_length){t->text[i].n, i};
    qsort(order, n, sizeof *order, longer_first);
    for (size_t i = 0; i < n; i++)
        t->special[i] = order[i].id;
    free(order);
    return TS_OK;
}

static int32_t child_of(const ts_tokenizer *t, int32_t node, uint8_t byte)
{
    if (node == 0)
        return t->root[byte] ? t->root[byte] : -1;
    int32_t c = t->node[node].child;
    while (c >= 0 && t->node[c].byte != byte)
        c = t->node[c].sibling;
    return c;
}

static int32_t add_child(ts_tokenizer *t, int32_t node, uint8_t byte)
{
    int32_t c = t->n_node++;
    t->node[c] = (tok_node){-1, t->node[node].child, 0, -1, -1, byte};
    t->node[node].child = c;
    if (node == 0)
        t->root[byte] = c;
    return c;
}

static void add_token(ts_tokenizer *t, int32_t rank)
{
    ts_str s = t->text[t->special[rank]];
    int32_t node = 0;
    for (size_t i = s.n; i-- > 0;) {
        uint8_t byte = (uint8_t)s.s[i];
        int32_t next = child_of(t, node, byte);
        node = next >= 0 ? next : add_child(t, node, byte);
    }
    if (t->node[node].rank < 0)
        t->node[node].rank = rank;
}

static int32_t step(const ts_tokenizer *t, int32_t node, uint8_t byte)
{
    for (;;) {
        int32_t next = child_of(t, node, byte);
        if (next >= 0)
            return next;
        if (node == 0)
            return 0;
        node = t->node[node].fail;
    }
}

/* Breadth first: where a node fails to is shallower than it, so it is done already. */
static ts_status link_failures(ts_tokenizer *t, ts_error *err)
{
    int32_t *queue = ts_calloc((size_t)t->n_node, sizeof *queue);
    if (!queue)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %d nodes", t->n_node);
    int32_t head = 0, tail = 1; /* queue[0] is the root */
    while (head < tail) {
        int32_t node = queue[head++];
        for (int32_t c = t->node[node].child; c >= 0; c = t->node[c].sibling) {
            int32_t fail = node == 0 ? 0 : step(t, t->node[node].fail, t->node[c].byte);
            t->node[c].fail = fail;
            t->node[c].link = t->node[fail].rank >= 0 ? fail : t->node[fail].link;
            queue[tail++] = c;
        }
    }
    free(queue);
    return TS_OK;
}

ts_status tok_find_build(ts_tokenizer *t, ts_error *err)
{
    size_t bytes;
    ts_status st = sort_special(t, &bytes, err);
    if (st != TS_OK || t->n_special == 0)
        return st;
    t->node = ts_calloc(bytes + 1, sizeof *t->node);
    if (!t->node)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu nodes", bytes + 1);
    t->n_node = 1;
    t->node[0] = (tok_node){-1, -1, 0, -1, -1, 0};
    for (int32_t r = 0; r < t->n_special; r++)
        add_token(t, r);
    return link_failures(t, err);
}

/* --- finding --------------------------------------------------------------- */

/* What stands at a byte: free, inside of a token, vanished, or PLACE + the rank of the token that
 * starts here. */
enum { FREE, INSIDE, VANISHED, PLACE };

/* "<|user|>", "[INST]": a delimiter by its looks; "<td>" is HTML. */
static bool delimits(ts_str s)
{
    bool angle = s.n > 2 && s.s[0] == '<' && s.s[s.n - 1] == '>';
    if (!angle)
        return s.n > 2 && s.s[0] == '[' && s.s[s.n - 1] == ']';
    size_t i = s.s[1] == '/' ? 2 : 1;
    if (s.s[i] < 'a' || s.s[i] > 'z')
        return true;
    while ((s.s[i] >= 'a' && s.s[i] <= 'z') || (s.s[i] >= '0' && s.s[i] <= '9'))
        i++;
    return i != s.n - 1;
}

/* Without `all`, only tokens that are user-defined and nothing else. Of `own` bytes from here on it
 * is known that a template wrote them: a token that means something must lie within them.
 * User-defined ones are found in anybody's text, as the models were trained, but for those that
 * look like delimiters (DeepSeek's turns). */
static bool allowed(const ts_tokenizer *t, int32_t id, bool all, size_t own)
{
    bool within = t->text[id].n <= own;
    if ((t->attr[id] & TOK_SPECIAL) == TOK_USER)
        return within || !delimits(t->text[id]);
    return all && within;
}

/* The longest allowed token at `node` or on its way of failures that is at most `room` bytes long;
 * its rank and, in *node, its node. -1 = none. */
static int32_t fit(const ts_tokenizer *t, int32_t *node, bool all, size_t room, size_t own)
{
    for (int32_t i = *node; i >= 0; i = t->node[i].link) {
        int32_t r = t->node[i].rank;
        if (r < 0)
            continue;
        int32_t id = t->special[r];
        if (t->text[id].n <= room && allowed(t, id, all, own)) {
            *node = i;
            return r;
        }
    }
    return -1;
}

static ts_status collect(tok_work *w, const char *text, size_t n, bool all)
{
    const ts_tokenizer *t = w->t;
    int32_t node = 0;
    uint32_t own = 0;
    for (size_t p = n; p-- > 0;) {
        node = step(t, node, (uint8_t)text[p]);
        own = w->mark && w->mark[p] ? 0 : own + 1;
        int32_t at = node, r;
        if (node == 0 || (r = fit(t, &at, all, n - p, own)) < 0)
            continue;
        ts_status st = tok_push(w, (tok_bigram){(uint64_t)r << 32 | p, (uint32_t)at, own});
        if (st != TS_OK)
            return st;
    }
    w->steps += n;
    return TS_OK;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void take(const ts_tokenizer *t, uint32_t *at, const char *text, size_t n, size_t p,
                 int32_t rank)
{
    int32_t id = t->special[rank];
    size_t end = p + t->text[id].n;
    for (size_t i = p; i < end; i++)
        at[i] = INSIDE;
    at[p] = PLACE + (uint32_t)rank;
    if (t->attr[id] & TOK_RSTRIP)
        for (size_t i = end; i < n && at[i] == FREE && is_space(text[i]); i++)
            at[i] = VANISHED;
}

/* Hands out the places. */
static ts_status settle(tok_work *w, uint32_t *at, const char *text, size_t n, bool all)
{
    const ts_tokenizer *t = w->t;
    tok_bigram b;
    while (tok_pop(w, &b)) {
        size_t p = (uint32_t)b.key, len = t->text[t->special[b.key >> 32]].n, room = 0;
        while (room < len && at[p + room] == FREE)
            room++;
        w->steps += room;
        int32_t node = (int32_t)b.right, r = fit(t, &node, all, room, b.size);
        if (room == len) {
            take(t, at, text, n, p, r);
        } else if (r >= 0) {
            ts_status st = tok_push(w, (tok_bigram){(uint64_t)r << 32 | p, (uint32_t)node, b.size});
            if (st != TS_OK)
                return st;
        }
    }
    return TS_OK;
}

static ts_status add_frag(tok_work *w, size_t pos, size_t len, int32_t id)
{
    ts_status st = tok_grow(w, (void **)&w->frag, &w->cap_frag, w->n_frag + 1, sizeof *w->frag);
    if (st == TS_OK)
        w->frag[w->n_frag++] = (tok_frag){(uint32_t)pos, (uint32_t)len, id};
    return st;
}

static ts_status list(tok_work *w, const uint32_t *at, size_t n)
{
    const ts_tokenizer *t = w->t;
    ts_status st = TS_OK;
    for (size_t p = 0, end; st == TS_OK && p < n; p = end) {
        end = p + 1;
        if (at[p] >= PLACE) {
            int32_t id = t->special[at[p] - PLACE];
            end = p + t->text[id].n;
            st = add_frag(w, p, t->text[id].n, id);
        } else if (at[p] == FREE) {
            while (end < n && at[end] == FREE)
                end++;
            st = add_frag(w, p, end - p, -1);
        }
    }
    return st;
}

ts_status tok_partition(tok_work *w, const char *text, size_t n, bool all)
{
    w->n_frag = 0;
    if (n == 0)
        return TS_OK;
    if (w->t->node) {
        ts_status st = collect(w, text, n, all);
        if (st != TS_OK)
            return st;
    }
    if (w->n_heap == 0)
        return add_frag(w, 0, n, -1);
    uint32_t *at = ts_calloc(n, sizeof *at);
    if (!at)
        return ts_fail(w->err, TS_NO_MEMORY, "no memory for a text of %zu bytes", n);
    ts_status st = settle(w, at, text, n, all);
    if (st == TS_OK)
        st = list(w, at, n);
    free(at);
    return st;
}
