/* markdown.js - a model's Markdown as DOM nodes.
 *
 * The text comes from strangers. Nothing here reads HTML: elements are made by name, all text
 * becomes text nodes, the only attribute taken from the text is the address of a link, and that only
 * as http, https or mailto. Images aren't fetched: one becomes a link. Work is linear in the length
 * of the text; how deep things nest is bounded, what lies deeper stays text.
 *
 * render(parent, text)   all at once
 * Stream(parent)         as the text grows: blocks that are complete are never touched again
 *
 * The dialect is CommonMark with GitHub's tables and strikethrough, less HTML, reference links and
 * lazy lines of quotes; an end of line is a line break, as in comments. */

import { element } from './dom.js';
import { inline } from './inline.js';

const MAX_BLOCKS = 12;    // lists and quotes in each other
const CHUNK_LINES = 100;  // of code are one box, so that the browser lays out only the last one again

/* ---- lines ---- */

const blank = (line) => line.trim() === '';

/* Columns of white space before the text; a tab goes to the next multiple of 4. */
function indentOf(line) {
    let columns = 0;
    for (let i = 0; i < line.length; i++) {
        if (line[i] === ' ') columns++;
        else if (line[i] === '\t') columns += 4 - columns % 4;
        else break;
    }
    return columns;
}

/* The line without so many columns of white space. */
function strip(line, columns) {
    let at = 0, i = 0;
    while (i < line.length && at < columns) {
        if (line[i] === ' ') at++;
        else if (line[i] === '\t') at += 4 - at % 4;
        else break;
        i++;
    }
    return ' '.repeat(Math.max(0, at - columns)) + line.slice(i);
}

function fenceOf(line) {
    const m = /^ {0,3}(?:(`{3,})([^`]*)|(~{3,})(.*))$/.exec(line);
    if (!m) return null;
    const mark = m[1] || m[3];
    return { mark: mark[0], n: mark.length, indent: indentOf(line), info: (m[2] ?? m[4]).trim() };
}

function closesFence(line, fence) {
    if (indentOf(line) > 3) return false;
    const text = line.trim();
    if (text.length < fence.n) return false;
    for (const c of text) if (c !== fence.mark) return false;
    return true;
}

function headingOf(line) {
    const m = /^ {0,3}(#{1,6})(?:[ \t](.*))?$/.exec(line);
    if (!m) return null;
    const text = (m[2] || '').trim();
    let end = text.length;
    while (end && text[end - 1] === '#') end--;
    const closed = end < text.length && (end === 0 || /[ \t]/.test(text[end - 1]));
    return { level: m[1].length, text: closed ? text.slice(0, end).trimEnd() : text };
}

/* A line of one character, with nothing else but spaces: how many there are, else 0. */
function allOf(line, c, spaced) {
    if (indentOf(line) > 3) return 0;
    let n = 0;
    for (const x of line.trim()) {
        if (x === c) n++;
        else if (!spaced || (x !== ' ' && x !== '\t')) return 0;
    }
    return n;
}

const isRule = (line) => ['-', '*', '_'].some((c) => allOf(line, c, true) >= 3);

function markerOf(line) {
    const m = /^( {0,3})([-+*]|\d{1,9}[.)])(?=[ \t]|$)/.exec(line);
    if (!m || isRule(line)) return null;
    const rest = line.slice(m[0].length);
    const space = indentOf(rest);
    const empty = blank(rest);
    const ordered = m[2].length > 1;
    return {
        indent: m[1].length,
        // where the item's text begins; five spaces and more are one space and code
        width: m[0].length + (empty || space > 4 ? 1 : space),
        rest: strip(rest, empty || space > 4 ? 1 : space),
        empty, ordered,
        kind: m[2].slice(-1),
        start: ordered ? Number.parseInt(m[2], 10) : 0,
    };
}

const isQuote = (line) => /^ {0,3}>/.test(line);

/* Whether the line ends a paragraph that goes before it. */
function interrupts(line) {
    if (indentOf(line) > 3) return false;
    const m = markerOf(line);
    return isQuote(line) || !!fenceOf(line) || !!headingOf(line) || isRule(line) ||
        (!!m && !m.empty && (!m.ordered || m.start === 1));
}

/* ---- tables ---- */

function cellsOf(line) {
    const text = line.trim();
    const cells = [];
    let cell = '';
    for (let i = text[0] === '|' ? 1 : 0; i < text.length; i++) {
        if (text[i] === '\\' && text[i + 1] === '|') {
            cell += '|';
            i++;
        } else if (text[i] === '|') {
            cells.push(cell.trim());
            cell = '';
            if (i === text.length - 1) return cells;
        } else {
            cell += text[i];
        }
    }
    cells.push(cell.trim());
    return cells;
}

/* The alignments of the columns, if the two lines begin a table. */
function tableAt(lines, i) {
    const head = lines[i], rule = lines[i + 1];
    if (rule === undefined || !head.includes('|') || !/^ {0,3}[|:-]/.test(rule) || indentOf(head) > 3)
        return null;
    const marks = cellsOf(rule);
    if (!marks.every((m) => /^:?-+:?$/.test(m)) || marks.length !== cellsOf(head).length) return null;
    return marks.map((m) => m.endsWith(':') ? (m[0] === ':' ? 'center' : 'right')
        : m[0] === ':' ? 'left' : '');
}

/* ---- blocks ---- */

/* Blocks of lines: {type, from, to, ...}; from and to are numbers of lines. What is in a list or a
 * quote is still lines. */
function blocksOf(lines, depth) {
    const blocks = [];
    for (let i = 0; i < lines.length;) {
        if (blank(lines[i])) {
            i++;
            continue;
        }
        const block = blockAt(lines, i, depth);
        block.from = i;
        blocks.push(block);
        i = block.to;
    }
    return blocks;
}

function blockAt(lines, i, depth) {
    const line = lines[i];
    if (indentOf(line) > 3) return indentedAt(lines, i);
    const fence = fenceOf(line);
    if (fence) return fencedAt(lines, i, fence);
    const heading = headingOf(line);
    if (heading) return { type: 'heading', ...heading, to: i + 1 };
    if (isRule(line)) return { type: 'rule', to: i + 1 };
    if (depth < MAX_BLOCKS) {
        if (isQuote(line)) return quoteAt(lines, i);
        if (markerOf(line)) return listAt(lines, i);
    }
    const align = tableAt(lines, i);
    if (align) {
        let to = i + 2;
        while (to < lines.length && !blank(lines[to]) && !interrupts(lines[to])) to++;
        return { type: 'table', align, rows: [line, ...lines.slice(i + 2, to)], to };
    }
    return paragraphAt(lines, i, depth);
}

function indentedAt(lines, i) {
    let to = i + 1;
    for (let k = to; k < lines.length && (blank(lines[k]) || indentOf(lines[k]) > 3); k++)
        if (!blank(lines[k])) to = k + 1;
    return { type: 'code', info: '', lines: lines.slice(i, to).map((l) => strip(l, 4)), to };
}

function fencedAt(lines, i, fence) {
    let to = i + 1;
    while (to < lines.length && !closesFence(lines[to], fence)) to++;
    const closed = to < lines.length;
    const inside = lines.slice(i + 1, to).map((l) => strip(l, fence.indent));
    if (!closed && inside.at(-1) === '') inside.pop(); // the end of the last line, not a line
    return { type: 'code', info: fence.info, fence, lines: inside, closed,
        to: Math.min(to + 1, lines.length) };
}

function quoteAt(lines, i) {
    const inside = [];
    let to = i;
    while (to < lines.length && isQuote(lines[to]))
        inside.push(lines[to++].replace(/^ {0,3}> ?/, ''));
    return { type: 'quote', lines: inside, to };
}

/* One item from its marker on. An item's lines are indented by two columns more than its marker at
 * least: models that write "1." often indent what belongs to it by two. */
function itemAt(lines, i, marker) {
    const inside = [marker.rest];
    let fence = fenceOf(marker.rest), to = i + 1;
    for (let k = i + 1; k < lines.length; k++) {
        const line = lines[k];
        if (blank(line)) {
            inside.push('');
            continue;
        }
        const inItem = indentOf(line) >= marker.indent + 2;
        const lazy = !inItem && to === k && !fence && !interrupts(line) && !markerOf(line);
        if (!inItem && !lazy) break;
        const text = inItem ? strip(line, marker.width) : line;
        if (fence) {
            if (closesFence(text, fence)) fence = null;
        } else {
            fence = fenceOf(text);
        }
        inside.push(text);
        to = k + 1;
    }
    return { from: i, to, lines: inside.slice(0, to - i) };
}

function listAt(lines, i) {
    const first = markerOf(lines[i]);
    const items = [];
    let to = i;
    for (let k = i, m = first; m && m.kind === first.kind;) {
        const item = itemAt(lines, k, m);
        items.push(item);
        to = k = item.to;
        while (k < lines.length && blank(lines[k])) k++;
        m = k < lines.length ? markerOf(lines[k]) : null;
    }
    return { type: 'list', ordered: first.ordered, kind: first.kind, start: first.start, items, to };
}

function paragraphAt(lines, i, depth) {
    let to = i + 1;
    for (; to < lines.length && !blank(lines[to]); to++) {
        const line = lines[to];
        // two at least: while text comes in, a single - is the beginning of a list
        const level = allOf(line, '=', false) > 1 ? 1 : allOf(line, '-', false) > 1 ? 2 : 0;
        if (level)
            return { type: 'heading', level, text: lines.slice(i, to).join('\n').trim(), to: to + 1 };
        if (depth < MAX_BLOCKS && interrupts(line)) break;
        if (tableAt(lines, to)) break;
    }
    return { type: 'paragraph', text: lines.slice(i, to).map((l) => l.trimStart()).join('\n'), to };
}

/* ---- nodes of blocks ---- */

/* Code, that grows at its end. */
class Code {
    constructor(info) {
        const language = info.split(/\s/, 1)[0].slice(0, 40);
        const copy = element('button', 'quiet copy', 'Copy');
        copy.type = 'button';
        copy.dataset.copy = 'code';
        copy.setAttribute('aria-label', language ? `Copy this ${language} code` : 'Copy this code');
        this.code = element('code');
        const pre = element('pre', '', this.code);
        pre.tabIndex = 0; // it may scroll: reachable by keyboard
        pre.setAttribute('role', 'group');
        pre.setAttribute('aria-label', language ? `Code, ${language}` : 'Code');
        this.node = element('div', 'code',
            element('div', 'code-head', element('span', '', language || 'text'), copy), pre);
        this.lines = CHUNK_LINES;
    }

    /* Adds text; a chunk ends behind the end of its last line. */
    add(text) {
        for (let from = 0; from < text.length;) {
            if (this.lines >= CHUNK_LINES) {
                this.last?.parentNode.classList.add('full');
                this.last = document.createTextNode('');
                this.code.append(element('span', 'chunk', this.last));
                this.lines = 0;
            }
            let to = from;
            while (to < text.length && this.lines < CHUNK_LINES) {
                const end = text.indexOf('\n', to);
                to = end < 0 ? text.length : end + 1;
                if (end >= 0) this.lines++;
            }
            this.last.appendData(text.slice(from, to));
            from = to;
        }
    }
}

function nodeOf(block, depth) {
    switch (block.type) {
    case 'heading':
        // The page's own headings are h1 and h2.
        return worded(element(`h${Math.min(6, block.level + 2)}`), block.text);
    case 'rule':
        return element('hr');
    case 'code': {
        const code = new Code(block.info);
        code.add(block.lines.join('\n'));
        return code.node;
    }
    case 'quote': {
        const quote = element('blockquote');
        append(quote, block.lines, depth + 1);
        return quote;
    }
    case 'list': {
        const list = element(block.ordered ? 'ol' : 'ul');
        if (block.ordered && block.start !== 1) list.start = block.start;
        for (const item of block.items) list.append(itemNode(item, depth));
        return list;
    }
    case 'table':
        return tableNode(block);
    default:
        return worded(element('p'), block.text);
    }
}

/* An element with a text in it. Its direction is found when all is there: with every word that is added to
 * an element that has one the browser would look for it again. */
function worded(node, text) {
    inline(node, text);
    node.dir = 'auto';
    return node;
}

function itemNode(item, depth) {
    const li = element('li');
    const task = /^\[([ xX])\][ \t]+/.exec(item.lines[0]);
    if (task) {
        const box = element('span', 'task', task[1] === ' ' ? '☐' : '☑');
        box.setAttribute('role', 'img');
        box.setAttribute('aria-label', task[1] === ' ' ? 'open' : 'done');
        li.append(box);
        li.className = 'has-task';
    }
    append(li, task ? [item.lines[0].slice(task[0].length), ...item.lines.slice(1)] : item.lines,
        depth + 1);
    return li;
}

function tableNode(block) {
    const row = (line, name) => {
        const tr = element('tr');
        // Missing cells aren't made: a wide head over many short rows would be more cells than text.
        const cells = cellsOf(line).slice(0, block.align.length);
        for (let i = 0; i < cells.length; i++) {
            const cell = element(name, block.align[i]);
            if (name === 'th') cell.scope = 'col';
            tr.append(worded(cell, cells[i]));
        }
        return tr;
    };
    const body = element('tbody');
    for (const line of block.rows.slice(1)) body.append(row(line, 'td'));
    const wide = element('div', 'table',
        element('table', '', element('thead', '', row(block.rows[0], 'th')), body));
    wide.tabIndex = 0; // it may scroll
    wide.setAttribute('role', 'group');
    wide.setAttribute('aria-label', 'Table');
    return wide;
}

function append(parent, lines, depth) {
    for (const block of blocksOf(lines, depth)) parent.append(nodeOf(block, depth));
}

/* ---- whole and growing texts ---- */

const newlines = (text) => text.includes('\r') ? text.replace(/\r\n?/g, '\n') : text;

export function render(parent, text) {
    append(parent, newlines(text).split('\n'), 0);
}

/* Whether so many complete lines are enough to know that this block begins where it does. */
const begun = (block, complete) => block.from + (block.type === 'table' ? 1 : 0) < complete;

/* A text that grows. Blocks and items of a list that a later, complete line has ended stay as they
 * are; only the last one is made anew. Code in fences only grows.
 *
 * done(node) is told of every block that is complete, in order. */
export class Stream {
    constructor(parent, done = () => {}) {
        this.parent = parent;
        this.done = done;
        this.at = 0;       // where in the text the open block begins, or the line of code
        this.open = [];    // nodes of the open block
        this.list = null;  // the open block is the last item of this list: {node, kind}
        this.code = null;  // the open block is code: {block, fence, lines, shown}
    }

    /* All of the text so far. */
    set(text) {
        this.grow(text, false);
    }

    /* All of the text; nothing follows. */
    end(text) {
        this.grow(text, true);
        for (const node of this.list ? [this.list.node] : this.open) this.done(node);
        this.open = [];
        this.list = this.code = null;
    }

    grow(text, last) {
        // A \r at the end waits: it may become \r\n.
        const all = newlines(!last && text.endsWith('\r') ? text.slice(0, -1) : text);
        if (this.code && !this.growCode(all, last)) return;
        for (const node of this.open.splice(0)) node.remove();
        const lines = all.slice(this.at).split('\n');
        const complete = last ? lines.length : lines.length - 1;
        const blocks = blocksOf(lines, 0);
        let line = 0; // the first that isn't in a finished block
        const starts = [0];
        for (const l of lines) starts.push(starts[starts.length - 1] + l.length + 1);
        for (let i = 0; i < blocks.length; i++) {
            const block = blocks[i];
            const over = i + 1 < blocks.length && begun(blocks[i + 1], complete);
            const node = this.place(block, i === 0);
            if (over) {
                this.done(node);
                this.list = null;
                line = blocks[i + 1].from;
                continue;
            }
            this.open = this.joined ? [...this.joined] : [node];
            line = block.from;
            if (i + 1 === blocks.length) line = this.keep(block, node, complete);
            else for (const b of blocks.slice(i + 1)) this.open.push(this.place(b, false));
            break;
        }
        this.at += starts[line];
        if (this.code) this.growCode(all, last);
    }

    /* The node of a block in its place; items of a list that goes on join it. */
    place(block, first) {
        if (first && this.list && block.type === 'list' && block.kind === this.list.kind) {
            const { node } = this.list;
            const items = block.items.map((item) => itemNode(item, 0));
            for (const item of items) node.append(item);
            this.joined = items;
            return node;
        }
        this.joined = null;
        if (first && this.list) {
            this.done(this.list.node);
            this.list = null;
        }
        const node = nodeOf(block, 0);
        this.parent.append(node);
        return node;
    }

    /* The last block stays open: which of it is already final. Gives the line it begins at. */
    keep(block, node, complete) {
        if (block.type === 'list') {
            const n = block.items.length;
            const items = this.joined || [...node.children];
            const final = n > 1 && block.items[n - 1].from < complete ? n - 1 : Math.max(0, n - 2);
            if (!final && !this.joined) return block.from;
            this.list = { node, kind: block.kind };
            this.open = items.slice(final);
            return block.items[final].from;
        }
        if (block.fence && !block.closed && block.from < complete) {
            node.remove();
            const code = new Code(block.info);
            this.parent.append(code.node);
            this.code = { block: code, fence: block.fence, lines: 0, shown: 0 };
            this.open = [];
            return block.from + 1;
        }
        return block.from;
    }

    /* Shows what came of the code; true when its end came. */
    growCode(all, last) {
        const { block, fence } = this.code;
        let end;
        while ((end = all.indexOf('\n', this.at)) >= 0 || (last && this.at < all.length)) {
            if (end < 0) end = all.length;
            const line = all.slice(this.at, end);
            if (closesFence(line, fence)) return this.endCode(end + 1, all);
            this.showLine(line);
            this.code.lines++;
            this.code.shown = 0;
            this.at = Math.min(end + 1, all.length);
            if (end === all.length) break;
        }
        const rest = all.slice(this.at);
        // The beginning of what may end it isn't shown yet.
        let i = 0;
        while (i < rest.length && (rest[i] === fence.mark || rest[i] === ' ')) i++;
        if (i < rest.length) this.showLine(rest);
        if (last) {
            this.done(block.node);
            this.code = null;
        }
        return false;
    }

    /* What isn't shown of the current line yet. */
    showLine(line) {
        const { code } = this;
        const text = strip(line, code.fence.indent);
        if (!code.shown && code.lines) code.block.add('\n');
        code.block.add(text.slice(Math.max(0, code.shown - 1)));
        code.shown = text.length + 1;
    }

    endCode(at, all) {
        this.done(this.code.block.node);
        this.code = null;
        this.at = Math.min(at, all.length);
        return true;
    }
}
