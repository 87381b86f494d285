/* inline.js - emphasis, code and links in a paragraph of Markdown, as DOM nodes.
 *
 * A text becomes tokens, the runs of * _ ~ among them are paired as CommonMark's appendix does, and
 * what came of it is appended. Every step looks at a character a bounded number of times: runs
 * that found no partner remember how far they looked, code spans know their ends beforehand,
 * addresses have a greatest length. */

import { element } from './dom.js';

const MAX_INLINE = 12;  // emphasis in each other; deeper is text
const MAX_URL = 2048;   // characters; what is longer is no link
const MAX_TITLE = 512;
const MAX_PARENS = 32;  // open ones in an address

/* The address if it may be followed, else null. */
export function safeUrl(text) {
    let url;
    try {
        url = new URL(text);
    } catch {
        return null;
    }
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
}

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', mdash: '—',
    ndash: '–', hellip: '…', times: '×', rarr: '→', larr: '←', le: '≤', ge: '≥', ne: '≠' };
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;

function entityAt(text, at) {
    const m = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,6}));/y;
    m.lastIndex = at;
    const found = m.exec(text);
    if (!found) return null;
    let value = found[3] ? (Object.hasOwn(ENTITIES, found[3]) ? ENTITIES[found[3]] : null) : null;
    if (!found[3]) {
        const code = found[1] ? Number.parseInt(found[1], 10) : Number.parseInt(found[2], 16);
        const fine = code >= 32 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        value = fine ? String.fromCodePoint(code) : '\ufffd';
    }
    return value === null ? null : { value, end: at + found[0].length };
}

/* (address "title") behind a link's text. */
function destinationAt(text, at) {
    let i = at + 1;
    const spaces = () => {
        const from = i;
        while (i < text.length && i - from < MAX_TITLE && /\s/.test(text[i])) i++;
        return i > from;
    };
    spaces();
    let url = '';
    if (text[i] === '<') {
        const end = text.slice(i + 1, i + 1 + MAX_URL).search(/[<>\n]/);
        if (end < 0 || text[i + 1 + end] !== '>') return null;
        url = text.slice(i + 1, i + 1 + end);
        i += end + 2;
    } else {
        const from = i;
        let open = 0;
        for (; i < text.length && !/[\s\p{Cc}]/u.test(text[i]); i++) {
            if (i - from > MAX_URL) return null;
            if (text[i] === '\\' && i + 1 < text.length && ESCAPABLE.test(text[i + 1])) i++;
            else if (text[i] === '(' && ++open > MAX_PARENS) return null;
            else if (text[i] === ')' && open-- === 0) break;
        }
        url = text.slice(from, i).replace(/\\([!-/:-@[-`{-~])/g, '$1');
    }
    if (spaces() && /["'(]/.test(text[i] || '')) {
        const close = text[i] === '(' ? ')' : text[i];
        const end = text.slice(i + 1, i + 1 + MAX_TITLE).indexOf(close);
        if (end < 0) return null;
        i += end + 2;
        spaces();
    }
    return text[i] === ')' ? { url, end: i + 1 } : null;
}

/* An address that stands in the text. What ends a sentence isn't part of it. */
function bareUrlAt(text, at) {
    const m = /https?:\/\/[^\s<>"`[\]]+/y;
    m.lastIndex = at;
    let url = m.exec(text)?.[0];
    if (!url) return null;
    if (url.length > MAX_URL) return { end: at + url.length };
    let open = 0, close = 0;
    for (const c of url) {
        if (c === '(') open++;
        if (c === ')') close++;
    }
    let end = url.length;
    for (;; end--) {
        const c = url[end - 1];
        if (c === ')' && close > open) close--;
        else if (!'.,;:!?\'*_~'.includes(c)) break;
    }
    url = url.slice(0, end);
    return { end: at + url.length, href: safeUrl(url) };
}

/* A run of *, _ or ~, and whether it can open and close by what stands beside it. */
function delimiterAt(text, at) {
    const c = text[at];
    let end = at;
    while (text[end] === c) end++;
    const before = at ? charBefore(text, at) : ' ';
    const after = end < text.length ? String.fromCodePoint(text.codePointAt(end)) : ' ';
    const spaceBefore = /\s/.test(before), spaceAfter = /\s/.test(after);
    const punctBefore = PUNCTUATION.test(before), punctAfter = PUNCTUATION.test(after);
    const left = !spaceAfter && (!punctAfter || spaceBefore || punctBefore);
    const right = !spaceBefore && (!punctBefore || spaceAfter || punctAfter);
    const word = c === '_';
    if (c === '~' && end - at !== 2) return { c, n: end - at, end, opens: [], closes: 0 };
    return { c, n: end - at, was: end - at, end, opens: [], closes: 0,
        open: left && (!word || !right || punctBefore), close: right && (!word || !left || punctAfter) };
}

function charBefore(text, at) {
    const low = text.charCodeAt(at - 1);
    const pair = low >= 0xdc00 && low <= 0xdfff && at > 1;
    return text.slice(at - (pair ? 2 : 1), at);
}

/* For every run of backticks where the next one as long begins: code spans without looking twice. */
function backticksOf(text) {
    const runs = [], next = new Map(), last = new Map();
    for (let i = text.indexOf('`'); i >= 0;) {
        let end = i;
        while (text[end] === '`') end++;
        runs.push([i, end - i]);
        i = text.indexOf('`', end);
    }
    for (const [at, n] of runs.reverse()) {
        next.set(at, { n, close: last.get(n) ?? -1 });
        last.set(n, at);
    }
    return next;
}

/* Pairs the runs of delimiters from number `bottom` on and forgets them (CommonMark's appendix). */
function pair(runs, bottom) {
    const list = runs.splice(bottom);
    const prev = list.map((_, i) => i - 1);
    const floor = new Map(); // below which no opener can be for such a closer
    for (let i = 0; i < list.length;) {
        const close = list[i];
        if (!close.close || !close.n) {
            i++;
            continue;
        }
        const key = close.c + (close.open ? 'o' : '') + close.was % 3;
        let k = prev[i];
        for (; k >= 0 && k > (floor.get(key) ?? -1); k = prev[k])
            if (matches(list[k], close)) break;
        if (k < 0 || k <= (floor.get(key) ?? -1)) {
            floor.set(key, prev[i]);
            if (!close.open) drop(prev, i, list.length);
            i++;
            continue;
        }
        const n = close.c === '~' || (list[k].n > 1 && close.n > 1) ? 2 : 1;
        const name = close.c === '~' ? 'del' : n === 2 ? 'strong' : 'em';
        list[k].opens.push(name);
        list[k].n -= n;
        close.closes++;
        close.n -= n;
        // those between can't pair any more
        prev[i] = list[k].n ? k : prev[k];
        if (!close.n) drop(prev, i, list.length);
    }
}

function drop(prev, i, n) {
    if (i + 1 < n) prev[i + 1] = prev[i];
}

function matches(open, close) {
    if (open.c !== close.c || !open.open || !open.n) return false;
    if (open.c === '~') return true;
    const both = (open.close || close.open) && (open.was + close.was) % 3 === 0;
    return !both || (open.was % 3 === 0 && close.was % 3 === 0);
}

const SPECIAL = /[\\`*_~[\]!<&\n]|https?:\/\//g;

function tokensOf(text) {
    const tokens = [], runs = [], brackets = [];
    const ticks = backticksOf(text);
    const add = (s) => tokens.push({ text: s });
    let at = 0;
    while (at < text.length) {
        SPECIAL.lastIndex = at;
        const found = SPECIAL.exec(text);
        const to = found ? found.index : text.length;
        if (to > at) add(text.slice(at, to));
        at = to;
        if (!found) break;
        const c = text[at];
        if (c === '\\' && at + 1 < text.length && ESCAPABLE.test(text[at + 1])) {
            add(text[at + 1]);
            at += 2;
        } else if (c === '\n' || (c === '\\' && text[at + 1] === '\n')) {
            tokens.push({ br: true });
            at += c === '\n' ? 1 : 2;
        } else if (c === '`') {
            const { n, close } = ticks.get(at) ?? { n: 1, close: -1 };
            if (close < 0) {
                add(text.slice(at, at + n));
                at += n;
            } else {
                tokens.push({ code: text.slice(at + n, close) });
                at = close + n;
            }
        } else if (c === '*' || c === '_' || c === '~') {
            const run = delimiterAt(text, at);
            tokens.push(run);
            runs.push(run);
            at = run.end;
        } else if (c === '[' || (c === '!' && text[at + 1] === '[')) {
            const bracket = { text: c === '[' ? '[' : '![', runs: runs.length, image: c === '!' };
            tokens.push(bracket);
            brackets.push(bracket);
            at += bracket.text.length;
        } else if (c === ']') {
            at = closeBracket(text, at, tokens, runs, brackets);
        } else if (c === '<') {
            const m = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2048})>/y;
            m.lastIndex = at;
            const url = m.exec(text)?.[1];
            const href = url && safeUrl(url);
            tokens.push(href ? { auto: url, href } : { text: '<' });
            at += href ? url.length + 2 : 1;
        } else if (c === '&') {
            const entity = entityAt(text, at);
            add(entity ? entity.value : '&');
            at = entity ? entity.end : at + 1;
        } else if (c === 'h') {
            const url = at && /[\p{L}\p{N}]/u.test(charBefore(text, at)) ? null : bareUrlAt(text, at);
            const end = url ? url.end : at + 4;
            const part = text.slice(at, end);
            tokens.push(url?.href ? { auto: part, href: url.href } : { text: part });
            at = end;
        } else {
            add(c);
            at++;
        }
    }
    pair(runs, 0);
    return tokens;
}

function closeBracket(text, at, tokens, runs, brackets) {
    const open = brackets.pop();
    const to = open && text[at + 1] === '(' ? destinationAt(text, at + 1) : null;
    const href = to && safeUrl(to.url);
    if (!href) {
        tokens.push({ text: ']' });
        return at + 1;
    }
    // Emphasis doesn't cross the ends of a link, and no link holds another.
    pair(runs, open.runs);
    open.link = href;
    tokens.push({ end: open });
    if (!open.image) brackets.length = 0;
    return to.end;
}

export function link(href) {
    const a = element('a');
    a.href = href;
    a.rel = 'noopener noreferrer';
    a.target = '_blank';
    a.title = href;
    return a;
}

/* Appends the text with its emphasis, code and links. */
export function inline(parent, text) {
    const stack = [parent];
    let words = '', links = 0;
    const top = () => stack[stack.length - 1];
    const flush = () => {
        if (words) top().append(words);
        words = '';
    };
    const leaf = (node) => {
        flush();
        top().append(node);
    };
    const push = (node) => {
        flush();
        if (node && stack.length <= MAX_INLINE) top().append(node);
        stack.push(node && stack.length <= MAX_INLINE ? node : top());
    };
    const pop = () => {
        flush();
        stack.pop();
    };
    for (const t of tokensOf(text)) {
        if (t.c) {
            for (let i = 0; i < t.closes; i++) pop();
            words += t.c.repeat(t.n);
            for (const name of t.opens.reverse()) push(element(name));
        } else if (t.br) {
            words = words.trimEnd();
            leaf(element('br'));
        } else if (t.code !== undefined) {
            let code = t.code.replace(/\n/g, ' ');
            if (code.length > 2 && code[0] === ' ' && code.at(-1) === ' ' && code.trim())
                code = code.slice(1, -1);
            leaf(element('code', '', code));
        } else if (t.auto) {
            if (links) {
                words += t.auto;
            } else {
                const a = link(t.href);
                a.append(t.auto);
                leaf(a);
            }
        } else if (t.link) {
            push(links++ ? null : link(t.link));
            if (t.image) words += 'Image: ';
        } else if (t.end) {
            links--;
            pop();
        } else {
            words += t.text;
        }
    }
    words = words.trimEnd();
    flush();
}
