/* number.c - arithmetic with Python's rules on 64 bits; numbers as text, whatever the locale. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja/impl.h"

/* --- floats as text ------------------------------------------------------------ */

/* strtod's mantissa without a point is the same in every locale: "1.25e3" is read as "125e1". */
bool j_parse_float(const char *s, size_t n, double *out)
{
    char text[400];
    size_t k = 0, i = 0;
    long frac = 0, exp = 0;
    bool digits = false, point = false;
    for (; i < n && ((s[i] >= '0' && s[i] <= '9') || (s[i] == '.' && !point)); i++) {
        if (s[i] == '.') {
            point = true;
            continue;
        }
        digits = true;
        if (k < sizeof text - 32)
            text[k++] = s[i];
        else
            frac++; /* a digit that can't count any more */
        frac -= point;
    }
    if (!digits)
        return false;
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        bool minus = false;
        if (++i < n && (s[i] == '+' || s[i] == '-'))
            minus = s[i++] == '-';
        if (i == n)
            return false;
        for (; i < n && s[i] >= '0' && s[i] <= '9'; i++)
            exp = exp < 100000 ? exp * 10 + (s[i] - '0') : exp;
        exp = minus ? -exp : exp;
    }
    if (i != n)
        return false;
    snprintf(text + k, sizeof text - k, "e%ld", exp + frac);
    *out = strtod(text, NULL);
    return true;
}

const char *j_float_fixed(j_run *j, double v, char kind, int precision)
{
    char fmt[8] = {'%', '.', '*', kind, 0};
    int n = snprintf(NULL, 0, fmt, precision, v);
    char *text = j_alloc(j, (size_t)n + 1);
    snprintf(text, (size_t)n + 1, fmt, precision, v);
    if (!isfinite(v))
        return text;
    /* the one thing that is no digit and no letter is the point */
    size_t k = 0;
    for (const char *c = text; *c; c++) {
        bool plain = (*c >= '0' && *c <= '9') || *c == '-' || *c == '+' || *c == 'e' || *c == 'E';
        if (plain)
            text[k++] = *c;
        else if (k == 0 || text[k - 1] != '.')
            text[k++] = '.';
    }
    text[k] = 0;
    return text;
}

bool j_parse_int(const char *s, size_t n, int base, int64_t *out)
{
    int64_t v = 0;
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'z' ? c - 'a' + 10
                : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                       : 99;
        if (d >= base || ts_mul_overflow(v, base, &v) || ts_add_overflow(v, d, &v))
            return false;
    }
    *out = v;
    return true;
}

/* --- conversions --------------------------------------------------------------------- */

int64_t j_float_to_int(j_run *j, double f)
{
    if (!(f > -0x1p63 && f < 0x1p63))
        j_fail(j, "a number is too large for an integer");
    return (int64_t)f;
}

/* int(text, base): a sign, a prefix where the base is 16, 8, 2 or 0, digits, "_" between them. */
static bool int_of_text(const j_str *s, int64_t base, int64_t *out)
{
    char text[80];
    size_t a = j_trim_left(s->s, s->n), z = j_trim_right(s->s, s->n), k = 0;
    bool minus = false;
    if (a < z && (s->s[a] == '-' || s->s[a] == '+'))
        minus = s->s[a++] == '-';
    if (z > a + 2 && s->s[a] == '0') {
        char c = (char)(s->s[a + 1] | 0x20);
        int means = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (means && (base == 0 || base == means)) {
            base = means;
            a += 2;
        }
    }
    if (base == 0)
        base = 10;
    for (size_t i = a; i < z; i++) {
        if (s->s[i] == '_' && k > 0 && i + 1 < z && s->s[i + 1] != '_')
            continue;
        if (k == sizeof text)
            return false;
        text[k++] = s->s[i];
    }
    if (base < 2 || base > 36 || !j_parse_int(text, k, (int)base, out))
        return false;
    *out = minus ? -*out : *out;
    return true;
}

bool j_to_int(j_value v, int64_t base, int64_t *out)
{
    if (v.kind == J_STR)
        return int_of_text(v.u.s, base, out);
    if (v.kind == J_FLOAT) {
        if (!(v.u.f > -0x1p63 && v.u.f < 0x1p63))
            return false;
        *out = (int64_t)v.u.f;
        return true;
    }
    return j_integer(v, out);
}

static bool float_of_text(const j_str *s, double *out)
{
    size_t a = j_trim_left(s->s, s->n), z = j_trim_right(s->s, s->n);
    bool minus = false;
    char word[12];
    if (a < z && (s->s[a] == '-' || s->s[a] == '+'))
        minus = s->s[a++] == '-';
    size_t n = z > a ? z - a : 0;
    if (n < sizeof word) {
        for (size_t i = 0; i < n; i++)
            word[i] = (char)(s->s[a + i] | 0x20);
        word[n] = 0;
        double special = strcmp(word, "nan") == 0 ? (double)NAN : 0;
        if (strcmp(word, "inf") == 0 || strcmp(word, "infinity") == 0)
            special = (double)INFINITY;
        if (special != 0) {
            *out = minus ? -special : special;
            return true;
        }
    }
    if (!j_parse_float(s->s + a, n, out))
        return false;
    *out = minus ? -*out : *out;
    return true;
}

bool j_to_float(j_value v, double *out)
{
    if (v.kind == J_STR)
        return float_of_text(v.u.s, out);
    if (!j_is_number(v))
        return false;
    *out = j_number(v);
    return true;
}

/* --- operators ------------------------------------------------------------------------ */

static const char *sign_of(j_op op)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    return signs[op - N_ADD];
}

static _Noreturn void too_large(j_run *j, j_op op)
{
    j_fail(j, "the result of '%s' is too large an integer", sign_of(op));
}

static int64_t floor_div(j_run *j, j_op op, int64_t a, int64_t b)
{
    if (b == -1) {
        int64_t r;
        if (__builtin_sub_overflow(0, a, &r))
            too_large(j, op);
        return r;
    }
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static double float_mod(double a, double b)
{
    double m = fmod(a, b);
    if (m != 0 && (m < 0) != (b < 0))
        return m + b;
    return m != 0 ? m : copysign(0, b);
}

static double float_floor_div(double a, double b)
{
    double m = fmod(a, b), q = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0))
        q -= 1;
    if (q == 0)
        return copysign(0, a / b);
    double f = floor(q);
    return q - f > 0.5 ? f + 1 : f;
}

static j_value int_pow(j_run *j, int64_t a, int64_t b)
{
    int64_t r = 1;
    if (b < 0) {
        if (a == 0)
            j_fail(j, "zero can't be raised to a negative power");
        return j_float(pow((double)a, (double)b));
    }
    for (; b > 0; b >>= 1) {
        if ((b & 1) && ts_mul_overflow(r, a, &r))
            too_large(j, N_POW);
        if (b > 1 && ts_mul_overflow(a, a, &a))
            too_large(j, N_POW);
    }
    return j_int(r);
}

static j_value int_arith(j_run *j, j_op op, int64_t a, int64_t b)
{
    int64_t r;
    if ((op == N_DIV || op == N_FLOORDIV || op == N_MOD) && b == 0)
        j_fail(j, "division by zero");
    switch (op) {
    case N_ADD:
        if (ts_add_overflow(a, b, &r))
            too_large(j, op);
        return j_int(r);
    case N_SUB:
        if (__builtin_sub_overflow(a, b, &r))
            too_large(j, op);
        return j_int(r);
    case N_MUL:
        if (ts_mul_overflow(a, b, &r))
            too_large(j, op);
        return j_int(r);
    case N_DIV:
        return j_float((double)a / (double)b);
    case N_FLOORDIV:
        return j_int(floor_div(j, op, a, b));
    case N_MOD:
        r = b == -1 ? 0 : a % b;
        return j_int(r != 0 && (r < 0) != (b < 0) ? r + b : r);
    default:
        return int_pow(j, a, b);
    }
}

static j_value float_arith(j_run *j, j_op op, double a, double b)
{
    if ((op == N_DIV || op == N_FLOORDIV || op == N_MOD) && b == 0)
        j_fail(j, "division by zero");
    switch (op) {
    case N_ADD:
        return j_float(a + b);
    case N_SUB:
        return j_float(a - b);
    case N_MUL:
        return j_float(a * b);
    case N_DIV:
        return j_float(a / b);
    case N_FLOORDIV:
        return j_float(float_floor_div(a, b));
    case N_MOD:
        return j_float(float_mod(a, b));
    default:
        if (a == 0 && b < 0)
            j_fail(j, "zero can't be raised to a negative power");
        double r = pow(a, b);
        if ((isinf(r) && isfinite(a) && isfinite(b)) || (isnan(r) && !isnan(a) && !isnan(b)))
            j_fail(j, "the result of '**' is no real number or too large");
        return j_float(r);
    }
}

static j_value repeat(j_run *j, j_value v, int64_t n)
{
    n = n < 0 ? 0 : n;
    if (v.kind == J_STR)
        return j_strv(j_repeat(j, v.u.s, n));
    size_t total;
    if (ts_mul_overflow(v.u.l->n, (size_t)n, &total) || total > j->limits.memory / sizeof(j_value))
        j_fail(j, "a list of %zu times %lld elements is too long", v.u.l->n, (long long)n);
    j_step(j, total);
    j_list *l = j_list_new(j, total);
    for (size_t i = 0; i < total; i++)
        l->v[i] = v.u.l->v[i % v.u.l->n];
    return j_listv(v.kind, l);
}

static bool is_seq(j_value v)
{
    return v.kind == J_STR || v.kind == J_LIST || v.kind == J_TUPLE;
}

static j_value join_lists(j_run *j, j_value a, j_value b)
{
    size_t n = a.u.l->n, m = b.u.l->n;
    j_list *l = j_list_new(j, n + m);
    j_step(j, n + m);
    for (size_t i = 0; i < n; i++)
        l->v[i] = a.u.l->v[i];
    for (size_t i = 0; i < m; i++)
        l->v[n + i] = b.u.l->v[i];
    return j_listv(a.kind, l);
}

j_value j_arith(j_run *j, j_op op, j_value a, j_value b)
{
    int64_t ia, ib;
    bool int_a = j_integer(a, &ia), int_b = j_integer(b, &ib);
    if (op == N_MOD && a.kind == J_STR)
        return j_strv(j_percent(j, a.u.s, b));
    if (a.kind == J_UNDEF)
        j_fail_undefined(j, a);
    if (b.kind == J_UNDEF)
        j_fail_undefined(j, b);
    if (int_a && int_b)
        return int_arith(j, op, ia, ib);
    if (j_is_number(a) && j_is_number(b))
        return float_arith(j, op, j_number(a), j_number(b));
    if (op == N_ADD && a.kind == J_STR && b.kind == J_STR)
        return j_strv(j_concat(j, a.u.s, b.u.s));
    if (op == N_ADD && a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE))
        return join_lists(j, a, b);
    if (op == N_MUL && is_seq(a) && int_b)
        return repeat(j, a, ib);
    if (op == N_MUL && is_seq(b) && int_a)
        return repeat(j, b, ia);
    j_fail(j, "'%s' can't be done with %s and %s", sign_of(op), j_type_name(a), j_type_name(b));
}

j_value j_sign(j_run *j, j_op op, j_value v)
{
    int64_t i;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind == J_FLOAT)
        return j_float(op == N_NEG ? -v.u.f : v.u.f);
    if (!j_integer(v, &i))
        j_fail(j, "%s has no sign", j_type_name(v));
    if (op == N_NEG && __builtin_sub_overflow(0, i, &i))
        j_fail(j, "the result of '-' is too large an integer");
    return j_int(i);
}

/* --- round ------------------------------------------------------------------------------ */

/* Halves go to the even neighbour. */
static int64_t round_int(j_run *j, int64_t v, int64_t precision)
{
    const int64_t half = 5000000000000000000; /* of the first power of ten that is too large */
    int64_t p = 1;
    bool large = precision == -19 && (v > half || v < -half);
    if (precision >= 0)
        return v;
    if (precision < -18 && !large)
        return 0;
    for (int64_t i = precision; i < 0 && !large; i++)
        p *= 10;
    int64_t down = floor_div(j, N_FLOORDIV, v, p), rest = v % p < 0 ? v % p + p : v % p;
    bool up = rest > p / 2 || (rest == p / 2 && down % 2 != 0);
    if (large || (up ? ts_add_overflow(v, p - rest, &v) : __builtin_sub_overflow(v, rest, &v)))
        j_fail(j, "a number is too large to be rounded");
    return v;
}

static double round_float(j_run *j, double v, int64_t precision)
{
    if (!isfinite(v) || precision > 323)
        return v;
    if (precision < -308)
        return copysign(0, v);
    if (precision < 0) {
        double p = pow(10, (double)-precision);
        return nearbyint(v / p) * p;
    }
    const char *text = j_float_fixed(j, v, 'f', (int)precision);
    double r = 0;
    bool minus = *text == '-';
    j_parse_float(text + minus, strlen(text) - minus, &r);
    return minus ? -r : r;
}

j_value j_round(j_run *j, j_value v, int64_t precision, const j_str *method)
{
    int64_t i;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (!j_is_number(v))
        j_fail(j, "%s can't be rounded", j_type_name(v));
    if (!method || j_str_eq(method, "common"))
        return j_integer(v, &i) ? j_int(round_int(j, i, precision))
                                : j_float(round_float(j, v.u.f, precision));
    double p = pow(10, (double)precision), x = j_number(v) * p;
    if (!j_str_eq(method, "ceil") && !j_str_eq(method, "floor"))
        j_fail(j, "round wants common, ceil or floor");
    x = j_str_eq(method, "ceil") ? ceil(x) : floor(x);
    if (!isfinite(x) || p == 0)
        j_fail(j, "a number is too large to be rounded");
    return j_float(x / p);
}
