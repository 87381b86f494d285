/* is.c - tests, what stands behind `is`. */
#include "jinja/impl.h"

#define TEST(name_, expr)                                                                          \
    static j_value is_##name_(j_run *j, j_value v, j_value *a, const j_args *args)                 \
    {                                                                                              \
        (void)j, (void)v, (void)a, (void)args;                                                     \
        return j_bool(expr);                                                                       \
    }

static bool modulo_is(j_run *j, j_value v, j_value by, int64_t rest)
{
    return j_equal(j, j_arith(j, N_MOD, v, by), j_int(rest));
}

static bool compares(j_run *j, j_value v, j_value *a, const char *op)
{
    bool unordered;
    int r = j_order(j, v, a[0], op, &unordered);
    if (unordered)
        return false;
    return *op == '<' ? (op[1] ? r <= 0 : r < 0) : (op[1] ? r >= 0 : r > 0);
}

static bool sequence(j_value v)
{
    return v.kind == J_STR || v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_DICT ||
           v.kind == J_RANGE || v.kind == J_UNDEF;
}

static bool callable(j_value v)
{
    return v.kind == J_MACRO || v.kind == J_METHOD || v.kind == J_FUNC || v.kind == J_LOOP ||
           v.kind == J_JOINER || v.kind == J_UNDEF;
}

static bool names_one(j_run *j, j_value v, const j_fn *(*find)(const char *name, size_t n))
{
    (void)j;
    return v.kind == J_STR && find(v.u.s->s, v.u.s->n) != NULL;
}

TEST(odd, modulo_is(j, v, j_int(2), 1))
TEST(even, modulo_is(j, v, j_int(2), 0))
TEST(divisibleby, modulo_is(j, v, a[0], 0))
TEST(defined, v.kind != J_UNDEF)
TEST(undefined, v.kind == J_UNDEF)
TEST(filter, names_one(j, v, j_filter))
TEST(test, names_one(j, v, j_test))
TEST(none, v.kind == J_NONE)
TEST(boolean, v.kind == J_BOOL)
TEST(false, v.kind == J_BOOL && !v.u.b)
TEST(true, v.kind == J_BOOL && v.u.b)
TEST(integer, v.kind == J_INT)
TEST(float, v.kind == J_FLOAT)
TEST(lower, j_cased(j_to_str(j, v), j_is_lower, j_is_upper))
TEST(upper, j_cased(j_to_str(j, v), j_is_upper, j_is_lower))
TEST(string, v.kind == J_STR)
TEST(mapping, v.kind == J_DICT)
TEST(number, j_is_number(v))
TEST(sequence, sequence(v))
TEST(iterable, j_iterable(v))
TEST(callable, callable(v))
TEST(sameas, j_same(v, a[0]))
TEST(escaped, v.kind == J_STR && v.u.s->markup)
TEST(in, j_contains(j, a[0], v))
TEST(eq, j_equal(j, v, a[0]))
TEST(ne, !j_equal(j, v, a[0]))
TEST(gt, compares(j, v, a, ">"))
TEST(ge, compares(j, v, a, ">="))
TEST(lt, compares(j, v, a, "<"))
TEST(le, compares(j, v, a, "<="))

const j_fn *j_test(const char *name, size_t n)
{
    static const j_fn table[] = {
        {"!=", is_ne, "b", 1},
        {"<", is_lt, "b", 1},
        {"<=", is_le, "b", 1},
        {"==", is_eq, "b", 1},
        {">", is_gt, "b", 1},
        {">=", is_ge, "b", 1},
        {"boolean", is_boolean, "", 0},
        {"callable", is_callable, "", 0},
        {"defined", is_defined, "", 0},
        {"divisibleby", is_divisibleby, "num", 1},
        {"eq", is_eq, "b", 1},
        {"equalto", is_eq, "b", 1},
        {"escaped", is_escaped, "", 0},
        {"even", is_even, "", 0},
        {"false", is_false, "", 0},
        {"filter", is_filter, "", 0},
        {"float", is_float, "", 0},
        {"ge", is_ge, "b", 1},
        {"greaterthan", is_gt, "b", 1},
        {"gt", is_gt, "b", 1},
        {"in", is_in, "seq", 1},
        {"integer", is_integer, "", 0},
        {"iterable", is_iterable, "", 0},
        {"le", is_le, "b", 1},
        {"lessthan", is_lt, "b", 1},
        {"lower", is_lower, "", 0},
        {"lt", is_lt, "b", 1},
        {"mapping", is_mapping, "", 0},
        {"ne", is_ne, "b", 1},
        {"none", is_none, "", 0},
        {"number", is_number, "", 0},
        {"odd", is_odd, "", 0},
        {"sameas", is_sameas, "other", 1},
        {"sequence", is_sequence, "", 0},
        {"string", is_string, "", 0},
        {"test", is_test, "", 0},
        {"true", is_true, "", 0},
        {"undefined", is_undefined, "", 0},
        {"upper", is_upper, "", 0},
    };
    return j_fn_find(table, sizeof table / sizeof *table, name, n);
}
