/* guard.c - who may ask, and how much may be sent. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "exchange.h"

enum { MAX_HEADERS = 100, MAX_HEADER_BYTES = 32 << 10 };
/* Bodies in memory, of all requests: so many of the largest. */
enum { MAX_LARGEST = 16 };

static const char *header(const ts_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* --- keys ---------------------------------------------------------------- */

/* Takes as long as the key that is right is long, whatever was given. */
static bool same(const char *key, const char *given)
{
    size_t n = strlen(key), m = strlen(given);
    volatile unsigned char differs = n != m;
    for (size_t i = 0; i < n; i++)
        differs |= (unsigned char)key[i] ^ (unsigned char)given[m ? i % m : 0];
    return differs == 0;
}

static const char *given_key(const ts_exchange *x)
{
    const char *s = header(x, "Authorization");
    if (s && strncasecmp(s, "Bearer ", 7) == 0)
        return s + 7 + strspn(s + 7, " ");
    return header(x, "X-Api-Key");
}

/* All keys are looked at, so that the time doesn't tell which one it was. */
static void check_key(ts_exchange *x)
{
    const ts_http_options *o = &x->http->o;
    const char *given = given_key(x);
    for (size_t i = 0; given && i < o->n_keys; i++)
        if (same(o->keys[i], given))
            x->key = (int)i + 1;
    if (x->key > 0) {
        x->client_hash = (uint64_t)x->key;
        return;
    }
    atomic_fetch_add(&x->http->service->metrics.unauthorized, 1);
    ts_refuse(&x->no, 401, "invalid_api_key", "",
              given ? "The API key is wrong."
                    : "This server wants an API key: Authorization: "
                      "Bearer KEY.");
}

/* --- pages of others ----------------------------------------------------- */

static const char *allowed_origin(const ts_exchange *x)
{
    const ts_http_options *o = &x->http->o;
    const char *origin = header(x, "Origin");
    for (size_t i = 0; i < o->n_origins; i++) {
        if (strcmp(o->origins[i], "*") == 0)
            return "*";
        if (origin && strcmp(o->origins[i], origin) == 0)
            return origin;
    }
    return NULL;
}

void ts_exchange_cors(const ts_exchange *x, struct MHD_Response *r)
{
    const char *origin = allowed_origin(x);
    if (x->http->o.n_origins > 0)
        MHD_add_response_header(r, "Vary", "Origin");
    if (!origin)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (!x->preflight)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Methods", x->allow);
    MHD_add_response_header(r, "Access-Control-Allow-Headers",
                            "Authorization, Content-Type, X-Api-Key, X-Stainless-Arch, "
                            "X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, "
                            "X-Stainless-Retry-Count, X-Stainless-Runtime, "
                            "X-Stainless-Runtime-Version, X-Stainless-Timeout");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}

static bool is_name(const char *s, size_t n, const char *name)
{
    return strlen(name) == n && strncasecmp(s, name, n) == 0;
}

/* Is nothing asked of who asks but to be on this machine? */
static bool unguarded(const ts_exchange *x)
{
    return x->http->local && x->http->o.n_keys == 0 && !x->http->o.no_auth;
}

/* A page somewhere may have its own name point at this machine's own address, and would then be
 * talking to itself as far as the browser sees. It can't hide the name. */
static bool strange_host(const ts_exchange *x)
{
    const char *host = header(x, "Host");
    if (!unguarded(x) || !host)
        return false;
    size_t n = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (*host == '[' || strspn(host, "0123456789.") == n)
        return false; /* an address */
    return !is_name(host, n, "localhost") && !is_name(host, n, x->http->o.host);
}

/* A page somewhere can't read answers, but it could have them made: a browser says whose it is. */
static bool strange_origin(const ts_exchange *x)
{
    const char *origin = header(x, "Origin"), *host = header(x, "Host");
    if (!unguarded(x) || !origin || !x->route || !x->route->post || allowed_origin(x))
        return false;
    return !host || strncasecmp(origin, "http://", 7) != 0 || strcasecmp(origin + 7, host) != 0;
}

/* --- sizes --------------------------------------------------------------- */

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value)
{
    size_t *sum = cls;
    (void)kind;
    sum[0]++;
    sum[1] += strlen(key) + (value ? strlen(value) : 0) + 4;
    return MHD_YES;
}

static void refuse_body(ts_exchange *x)
{
    atomic_fetch_add(&x->http->service->metrics.too_large, 1);
    ts_refuse(&x->no, 413, "body_too_large", "", "The body is larger than the %zu bytes allowed.",
              x->http->o.max_body);
}

static void check_sizes(ts_exchange *x)
{
    const char *length = header(x, "Content-Length");
    size_t sum[2] = {0};
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, count_header, sum);
    if (sum[0] > MAX_HEADERS || sum[1] > MAX_HEADER_BYTES) {
        atomic_fetch_add(&x->http->service->metrics.too_large, 1);
        ts_refuse(&x->no, 431, "header_too_large", "",
                  "The header is larger than the %d lines and %d bytes allowed.", MAX_HEADERS,
                  MAX_HEADER_BYTES);
    } else if (length && strtoull(length, NULL, 10) > x->http->o.max_body) {
        refuse_body(x);
    }
}

/* What is refused is read all the same, and dropped: many clients look for an answer only behind
 * their request's end. */
void ts_exchange_take(ts_exchange *x, const char *data, size_t n)
{
    ts_http *h = x->http;
    x->received += n;
    if (!x->no.status && n > h->o.max_body - x->in.n)
        refuse_body(x);
    if (!x->no.status && atomic_load(&h->held) + n > MAX_LARGEST * h->o.max_body)
        ts_refuse(&x->no, 503, "busy", "", "Too much is being sent at once; try again soon.");
    if (!x->no.status) {
        ts_sb_add(&x->in, data, n);
        atomic_fetch_add(&h->held, n);
        x->held += n;
        if (x->in.failed)
            ts_request_no_memory(&x->no);
    }
    if (x->no.status) {
        ts_sb_free(&x->in);
        ts_exchange_let_go(x);
        x->discarded += n;
    }
}

void ts_exchange_let_go(ts_exchange *x)
{
    atomic_fetch_sub(&x->http->held, x->held);
    x->held = 0;
}

/* --- the whole ----------------------------------------------------------- */

void ts_exchange_check(ts_exchange *x)
{
    bool open = x->preflight || x->page || (x->route && x->route->open);
    check_sizes(x);
    if (x->no.status == 431 || x->no.status == 413)
        return;
    if (strange_host(x)) {
        ts_refuse(&x->no, 421, "strange_host", "",
                  "This server is for this machine alone and isn't called that; --host or a key "
                  "allows names.");
        return;
    }
    if (strange_origin(x)) {
        ts_refuse(&x->no, 403, "strange_origin", "",
                  "Pages of others may not ask here; --cors-origin or a key allows them.");
        return;
    }
    if (x->http->o.n_keys > 0 && !open)
        check_key(x);
}
