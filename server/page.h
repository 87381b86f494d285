/* page.h - the files of the chat page, which are part of the program. */
#ifndef TS_PAGE_H
#define TS_PAGE_H

#include <stddef.h>

typedef struct ts_page_file {
    const char *name; /* "index.html" */
    const unsigned char *data, *end;
} ts_page_file;

/* The file of a path: "/" is index.html, "/page/NAME" the file NAME. NULL: there is none. Nothing
 * is looked up in a file system, so there is nothing outside to reach. */
const ts_page_file *ts_page_find(const char *path);
const char *ts_page_type(const ts_page_file *f); /* its media type */

#endif
