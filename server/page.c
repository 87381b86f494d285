/* page.c - the chat page: the assembler takes the files of server/page/ in as they are. */
#include "page.h"

#include <stdbool.h>
#include <string.h>

/* page_files.def, which CMake writes, has a line TS_PAGE_FILE(NUMBER, NAME, PATH) a file. */
#define TS_PAGE_FILE(number, name, path)                                                           \
    __asm__(".section .rodata\n"                                                                   \
            ".balign 16\n"                                                                         \
            ".globl ts_page_" #number "\n"                                                         \
            ".hidden ts_page_" #number "\n"                                                        \
            "ts_page_" #number ":\n"                                                               \
            ".incbin \"" path "\"\n"                                                               \
            ".globl ts_page_end_" #number "\n"                                                     \
            ".hidden ts_page_end_" #number "\n"                                                    \
            "ts_page_end_" #number ":\n"                                                           \
            ".byte 0\n"                                                                            \
            ".previous\n");                                                                        \
    extern const unsigned char ts_page_##number[] __attribute__((visibility("hidden")));           \
    extern const unsigned char ts_page_end_##number[] __attribute__((visibility("hidden")));
#include "page_files.def"
#undef TS_PAGE_FILE

static const ts_page_file files[] = {
#define TS_PAGE_FILE(number, name, path) {name, ts_page_##number, ts_page_end_##number},
#include "page_files.def"
#undef TS_PAGE_FILE
    {NULL, NULL, NULL},
};

const ts_page_file *ts_page_find(const char *path)
{
    static const char folder[] = "/page/";
    const bool first = strcmp(path, "/") == 0;
    if (!first && strncmp(path, folder, sizeof folder - 1) != 0)
        return NULL;
    const char *name = first ? "index.html" : path + sizeof folder - 1;
    for (const ts_page_file *f = files; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

const char *ts_page_type(const ts_page_file *f)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".ico", "image/x-icon"},
        {".json", "application/json"},
        {".webmanifest", "application/manifest+json"},
        {".txt", "text/plain; charset=utf-8"},
    };
    const char *dot = strrchr(f->name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}
