/* route.c - which path is what. */
#include <string.h>

#include "base/utf8.h"
#include "exchange.h"

/* --- answers that need no generation ------------------------------------------------------------
 */

static void health(ts_exchange *x)
{
    if (atomic_load(&x->http->draining))
        ts_refuse(&x->no, 503, "shutting_down", "", "The server is shutting down.");
    else
        ts_sb_str(&x->out, "{\"status\":\"ok\"}");
}

static void metrics(ts_exchange *x)
{
    ts_metrics_write(&x->http->service->metrics, x->http->service->sched, &x->out);
    x->type = "text/plain; version=0.0.4; charset=utf-8";
}

static void models(ts_exchange *x)
{
    ts_info_models(x->http->service, &x->out);
}

static void one_model(ts_exchange *x)
{
    const ts_service *s = x->http->service;
    for (size_t i = 0; i < s->n_names; i++)
        if (strcmp(s->names[i], x->tail) == 0) {
            ts_info_model(s, i, &x->out);
            return;
        }
    ts_refuse(&x->no, 404, "model_not_found", "model", "There is no model '%.*s' here.",
              ts_utf8_cut(x->tail, 200), x->tail);
}

static void props(ts_exchange *x)
{
    ts_info_props(x->http->service, &x->out);
}

static void plan(ts_exchange *x)
{
    ts_info_plan(x->http->service, &x->out, &x->no);
}

/* --- the table ----------------------------------------------------------- */

static const ts_route routes[] = {
    {"/v1/chat/completions", true, false, NULL, TS_ASK_CHAT},
    {"/v1/completions", true, false, NULL, TS_ASK_COMPLETION},
    {"/v1/embeddings", true, false, NULL, TS_ASK_EMBEDDING},
    {"/tokenize", true, false, NULL, TS_ASK_TOKENIZE},
    {"/detokenize", true, false, NULL, TS_ASK_DETOKENIZE},
    {"/v1/models", false, false, models, TS_ASK_CHAT},
    {"/v1/models/", false, false, one_model, TS_ASK_CHAT},
    {"/health", false, true, health, TS_ASK_CHAT},
    {"/v1/health", false, true, health, TS_ASK_CHAT},
    {"/metrics", false, false, metrics, TS_ASK_CHAT},
    {"/props", false, false, props, TS_ASK_CHAT},
    {"/plan", false, false, plan, TS_ASK_CHAT},
};

enum { N_ROUTES = sizeof routes / sizeof *routes };
_Static_assert(N_ROUTES + 2 <= TS_METRICS_ROUTES, "room for the counters of each route");

size_t ts_routes(const ts_route **out)
{
    *out = routes;
    return N_ROUTES;
}

static bool matches(const ts_route *r, const char *path, const char **tail)
{
    size_t n = strlen(r->path);
    *tail = path + n;
    /* one that ends in a slash has something behind it */
    return r->path[n - 1] == '/' ? strncmp(path, r->path, n) == 0 && path[n]
                                 : strcmp(path, r->path) == 0;
}

static bool allows(const ts_exchange *x, const char *method)
{
    if (x->route && x->route->post)
        return strcmp(method, "POST") == 0;
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

void ts_exchange_route(ts_exchange *x, const char *path, const char *method)
{
    for (size_t i = 0; i < N_ROUTES && !x->route; i++)
        if (matches(&routes[i], path, &x->tail))
            x->route = &routes[i];
    if (!x->route && x->http->o.page)
        x->page = ts_page_find(path);
    x->allow = x->route && x->route->post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
    if (!x->route && !x->page) {
        ts_refuse(&x->no, 404, "not_found", "", "There is nothing at this path.");
    } else if (strcmp(method, "OPTIONS") == 0) {
        x->preflight = true;
    } else if (!allows(x, method)) {
        ts_refuse(&x->no, 405, "method_not_allowed", "", "This path has %s.",
                  x->route && x->route->post ? "POST" : "GET and HEAD");
    }
}
