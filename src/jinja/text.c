/* text.c - strings: parts, search, what the methods are made of. Each keeps whose every byte is. */
#include <string.h>

#include "jinja/impl.h"

/* --- making ------------------------------------------------------------------- */

size_t j_chars(const char *s, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((uint8_t)s[i] & 0xc0) != 0x80;
    return chars;
}

const j_str *j_str_new(j_run *j, const char *s, size_t n, uint8_t from)
{
    j_str *p = j_alloc(j, sizeof *p);
    *p = (j_str){.s = s, .n = n, .chars = j_chars(s, n), .from = from};
    return p;
}

const j_str *j_text(j_run *j, const char *s)
{
    return j_str_new(j, s, strlen(s), J_TEMPLATE);
}

const j_str *j_sub(j_run *j, const j_str *s, size_t pos, size_t n)
{
    if (pos == 0 && n == s->n)
        return s;
    j_str *p = j_alloc(j, sizeof *p);
    j_step(j, n / 64);
    *p = *s;
    p->s += pos;
    p->n = n;
    p->chars = s->chars == s->n ? n : j_chars(p->s, n);
    if (p->mark)
        p->mark += pos;
    return p;
}

const j_str *j_as_markup(j_run *j, const j_str *s, bool markup)
{
    if (s->markup == markup)
        return s;
    j_str *p = j_alloc(j, sizeof *p);
    *p = *s;
    p->markup = markup;
    return p;
}

/* Where one of two is markup the other is escaped, as markupsafe does. */
const j_str *j_concat(j_run *j, const j_str *a, const j_str *b)
{
    bool markup = a->markup || b->markup;
    if (markup) {
        a = j_escape(j, j_strv(a));
        b = j_escape(j, j_strv(b));
    }
    j_buf out = {0};
    j_buf_str(j, &out, a);
    j_buf_str(j, &out, b);
    return j_as_markup(j, j_buf_done(j, &out), markup);
}

const j_str *j_repeat(j_run *j, const j_str *s, int64_t n)
{
    j_buf b = {0};
    for (int64_t i = 0; i < n && s->n > 0; i++) {
        j_step(j, 1);
        j_buf_str(j, &b, s);
    }
    return j_as_markup(j, j_buf_done(j, &b), s->markup);
}

/* --- asking ------------------------------------------------------------------- */

uint8_t j_mark_at(const j_str *s, size_t byte)
{
    return s->mark ? s->mark[byte] : s->from;
}

bool j_str_eq(const j_str *a, const char *b)
{
    return a->n == strlen(b) && memcmp(a->s, b, a->n) == 0;
}

bool j_str_same(const j_str *a, const j_str *b)
{
    return a == b || (a->n == b->n && memcmp(a->s, b->s, a->n) == 0);
}

size_t j_byte_of(const j_str *s, size_t chr)
{
    if (s->chars == s->n || chr == 0)
        return chr < s->n ? chr : s->n;
    size_t i = 0;
    for (; i < s->n; i++)
        if (((uint8_t)s->s[i] & 0xc0) != 0x80 && chr-- == 0)
            break;
    return i;
}

int64_t j_find(j_run *j, const j_str *s, const j_str *what, size_t from)
{
    if (from > s->n || what->n > s->n - from)
        return -1;
    const char *p = memmem(s->s + from, s->n - from, what->s, what->n);
    j_step(j, 1 + (p ? (size_t)(p - s->s) - from : s->n - from) / 64);
    return p ? p - s->s : -1;
}

int64_t j_rfind(j_run *j, const j_str *s, const j_str *what, size_t end)
{
    if (what->n > end)
        return -1;
    for (size_t i = end - what->n + 1; i-- > 0;) {
        if (i % 16 == 0)
            j_step(j, 1);
        if (what->n > 0 && s->s[i] != *what->s)
            continue;
        j_step(j, 1 + what->n / 64);
        if (memcmp(s->s + i, what->s, what->n) == 0)
            return (int64_t)i;
    }
    return -1;
}

/* --- changing -------------------------------------------------------------------- */

static bool in_set(const j_str *set, const char *s, size_t len)
{
    return memmem(set->s, set->n, s, len) != NULL;
}

static const j_str *strip_set(j_run *j, const j_str *s, const j_str *set, bool left, bool right)
{
    size_t a = 0, z = s->n, len;
    while (left && a < z) {
        j_char_at(s->s + a, z - a, &len);
        if (!in_set(set, s->s + a, len))
            break;
        j_step(j, 1 + set->n / 64);
        a += len;
    }
    while (right && z > a) {
        size_t at = z - 1;
        while (at > a && ((uint8_t)s->s[at] & 0xc0) == 0x80)
            at--;
        if (!in_set(set, s->s + at, z - at))
            break;
        j_step(j, 1 + set->n / 64);
        z = at;
    }
    return j_sub(j, s, a, z - a);
}

/* `set` NULL: white space. */
const j_str *j_strip(j_run *j, const j_str *s, const j_str *set, bool left, bool right)
{
    if (set)
        return strip_set(j, s, set, left, right);
    size_t a = left ? j_trim_left(s->s, s->n) : 0;
    size_t z = right && a < s->n ? j_trim_right(s->s, s->n) : s->n;
    return j_sub(j, s, a, z - a);
}

/* An empty `old` stands between any two characters, before and behind. */
static void replace_empty(j_run *j, j_buf *b, const j_str *s, const j_str *new_, int64_t most)
{
    for (size_t i = 0, len; most != 0; i += len, most--) {
        j_step(j, 1);
        j_buf_str(j, b, new_);
        if (i >= s->n) {
            most = 0;
            return;
        }
        j_char_at(s->s + i, s->n - i, &len);
        j_buf_str(j, b, j_sub(j, s, i, len));
        if (most == 1) {
            j_buf_str(j, b, j_sub(j, s, i + len, s->n - i - len));
            return;
        }
    }
    j_buf_str(j, b, s);
}

const j_str *j_replace(j_run *j, const j_str *s, const j_str *old, const j_str *new_, int64_t most)
{
    j_buf b = {0};
    if (most == 0)
        return s;
    most = most < 0 ? INT64_MAX : most;
    if (old->n == 0) {
        replace_empty(j, &b, s, new_, most);
        return j_as_markup(j, j_buf_done(j, &b), s->markup);
    }
    size_t at = 0;
    int64_t hit;
    while (most-- != 0 && (hit = j_find(j, s, old, at)) >= 0) {
        j_buf_str(j, &b, j_sub(j, s, at, (size_t)hit - at));
        j_buf_str(j, &b, new_);
        at = (size_t)hit + old->n;
    }
    if (at == 0)
        return s;
    j_buf_str(j, &b, j_sub(j, s, at, s->n - at));
    return j_as_markup(j, j_buf_done(j, &b), s->markup);
}

const j_str *j_escape(j_run *j, j_value v)
{
    const j_str *s = j_to_str(j, v);
    if (s->markup)
        return s;
    j_buf b = {0};
    for (size_t i = 0; i < s->n; i++) {
        static const char special[] = "&<>'\"";
        static const char *const as[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        const char *hit = s->s[i] ? strchr(special, s->s[i]) : NULL;
        if (hit) {
            j_buf_add(j, &b, as[hit - special], strlen(as[hit - special]), j_mark_at(s, i));
            continue;
        }
        size_t end = i + 1;
        while (end < s->n && (!s->s[end] || !strchr(special, s->s[end])))
            end++;
        j_buf_str(j, &b, j_sub(j, s, i, end - i));
        i = end - 1;
    }
    return j_as_markup(j, j_buf_done(j, &b), true);
}

/* --- lines --------------------------------------------------------------------------- */

/* Bytes of the line break at s[0..n), 0 = none: those of Python's str.splitlines. */
static size_t line_break(const char *s, size_t n)
{
    size_t len;
    uint32_t cp = j_char_at(s, n, &len);
    if (cp == '\r')
        return n > 1 && s[1] == '\n' ? 2 : 1;
    if ((cp >= 0x0a && cp <= 0x0c) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
        cp == 0x2029)
        return len;
    return 0;
}

const j_list *j_splitlines(j_run *j, const j_str *s, bool keep)
{
    j_list *l = j_list_new(j, 0);
    size_t cap = 0;
    for (size_t at = 0; at < s->n;) {
        size_t end = at, brk = 0;
        while (end < s->n && (brk = line_break(s->s + end, s->n - end)) == 0)
            end++;
        l->v = j_more(j, l->v, l->n, &cap, sizeof *l->v);
        l->v[l->n++] = j_strv(j_sub(j, s, at, end - at + (keep ? brk : 0)));
        j_step(j, 1);
        at = end + brk;
    }
    return l;
}

/* --- slices ---------------------------------------------------------------------------- */

static bool bound(j_run *j, j_value v, int64_t *out)
{
    if (v.kind == J_NONE || v.kind == J_MISSING)
        return false;
    if (!j_integer(v, out))
        j_fail(j, "a slice wants integers, not %s", j_type_name(v));
    return true;
}

/* Python's rules (slice.indices): the first index and how many there are. */
static size_t indices(int64_t n, bool has_a, int64_t a, bool has_z, int64_t z, int64_t step,
                      int64_t *first)
{
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (!has_a)
        a = step < 0 ? high : low;
    else if (a < 0)
        a = a < -n ? low : a + n;
    else if (a > high)
        a = high;
    if (!has_z)
        z = step < 0 ? low : high;
    else if (z < 0)
        z = z < -n ? low : z + n;
    else if (z > high)
        z = high;
    *first = a;
    if (step > 0)
        return a < z ? (size_t)((uint64_t)(z - a - 1) / (uint64_t)step + 1) : 0;
    return z < a ? (size_t)((uint64_t)(a - z - 1) / (0 - (uint64_t)step) + 1) : 0;
}

static const j_str *slice_str(j_run *j, const j_str *s, int64_t first, size_t n, int64_t step)
{
    if (n == 0)
        return j_sub(j, s, 0, 0);
    j_step(j, 1 + s->n / 64);
    if (step == 1) {
        size_t a = j_byte_of(s, (size_t)first);
        j_str rest = {.s = s->s + a, .n = s->n - a, .chars = s->chars - (size_t)first};
        return j_sub(j, s, a, j_byte_of(&rest, n));
    }
    /* where each character begins */
    size_t *at = j_array(j, s->chars + 1, sizeof *at), k = 0;
    for (size_t i = 0; i < s->n; i++)
        if (((uint8_t)s->s[i] & 0xc0) != 0x80)
            at[k++] = i;
    at[k] = s->n;
    j_buf b = {0};
    for (size_t i = 0; i < n; i++) {
        size_t c = (size_t)(first + (int64_t)i * step);
        j_step(j, 1);
        j_buf_add(j, &b, s->s + at[c], at[c + 1] - at[c], j_mark_at(s, at[c]));
    }
    return j_as_markup(j, j_buf_done(j, &b), s->markup);
}

j_value j_slice(j_run *j, j_value v, j_value start, j_value stop, j_value step)
{
    int64_t a = 0, z = 0, by = 1, first;
    size_t length;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind != J_STR && v.kind != J_LIST && v.kind != J_TUPLE && v.kind != J_RANGE)
        j_fail(j, "%s can't be sliced", j_type_name(v));
    bool has_a = bound(j, start, &a), has_z = bound(j, stop, &z);
    if (bound(j, step, &by) && by == 0)
        j_fail(j, "a slice's step can't be zero");
    length = v.kind == J_STR ? v.u.s->chars : v.kind == J_RANGE ? (size_t)v.u.r->n : v.u.l->n;
    size_t n = indices((int64_t)length, has_a, a, has_z, z, by, &first);
    if (v.kind == J_STR)
        return j_strv(slice_str(j, v.u.s, first, n, by));
    if (v.kind == J_RANGE) {
        j_range *r = j_alloc(j, sizeof *r);
        uint64_t one = (uint64_t)v.u.r->step; /* no overflow where there are such elements */
        *r = (j_range){
            .start = n ? (int64_t)((uint64_t)v.u.r->start + (uint64_t)first * one) : 0,
            .step = n > 1 ? (int64_t)((uint64_t)by * one) : 1,
            .n = (int64_t)n,
        };
        r->stop = (int64_t)((uint64_t)r->start + n * (uint64_t)r->step);
        return (j_value){.kind = J_RANGE, .u.r = r};
    }
    j_list *l = j_list_new(j, n);
    for (size_t i = 0; i < n; i++)
        l->v[i] = v.u.l->v[first + (int64_t)i * by];
    return j_listv(v.kind, l);
}
