/* plan.js - the view of the plan: which tensors run where, from the JSON of `tessera plan` (docs/CLI.md).
 *
 * A colour is a device (its hue) and a kernel set (its shade); the legend says which in words, and
 * every row and cell can be read without colours. */

import { button, bytes, count, element, plural, speed } from './dom.js';

const HUES = [36, 178, 262, 330, 96, 210, 0, 290]; // of the CPU, of GPUs

export function showPlan(root, plan) {
    const weights = Array.isArray(plan.weights) ? plan.weights : [];
    const places = placesOf(plan, weights);
    const table = new Table(weights, places);
    root.replaceChildren(
        facts(plan),
        element('div', 'devices', ...(plan.devices ?? []).map((d) => deviceNode(d, places.hue(d.name)))),
        element('h3', '', 'Layers'),
        element('p', 'muted', 'A row is a layer, a box one of its tensors, as wide as it has bytes; ' +
            'the first row, which is no layer, to a scale of its own.'),
        legend(places, table),
        layers(weights, places, table),
        ...wayOf(plan, places),
        element('h3', '', 'Tensors'),
        table.node);
}

/* Every pair of a device and a kernel set there is, with its colour. */
function placesOf(plan, weights) {
    const devices = (plan.devices ?? []).map((d) => d.name);
    for (const w of weights) if (!devices.includes(w.device)) devices.push(w.device);
    const all = new Map();
    for (const w of weights) {
        const name = `${w.device} ${w.kernel_set}`;
        if (!all.has(name)) all.set(name, { name, device: w.device, set: w.kernel_set, n: 0, bytes: 0 });
        all.get(name).n++;
        all.get(name).bytes += w.bytes;
    }
    const sorted = [...all.values()].sort((a, b) =>
        devices.indexOf(a.device) - devices.indexOf(b.device) || b.bytes - a.bytes);
    for (const p of sorted) p.shade = sorted.filter((q) => q.device === p.device).indexOf(p);
    const hue = (device) => HUES[devices.indexOf(device) % HUES.length] ?? 0;
    return { all: sorted, of: (w) => all.get(`${w.device} ${w.kernel_set}`), hue };
}

function paint(node, place, places) {
    node.style.setProperty('--hue', places.hue(place.device));
    node.style.setProperty('--shade', Math.min(place.shade, 3));
    return node;
}

function pairs(className, list) {
    return element('dl', className, ...list.filter(([, v]) => v).map(([k, v]) =>
        element('div', '', element('dt', '', k), element('dd', '', v))));
}

function facts(plan) {
    const { predicted = {}, kv = {} } = plan;
    return pairs('facts', [
        ['decode, predicted', predicted.decode_tps ? speed(predicted.decode_tps) : ''],
        ['prefill, predicted', predicted.prefill_tps ? speed(predicted.prefill_tps) : ''],
        ['context', kv.n_ctx ? `${plural(kv.n_ctx, 'token')}, ${kv.type}` : ''],
        ['kernel sets up to', plan.isa],
        ['threads', plan.n_threads],
        ['micro-batch', plan.n_ubatch ? plural(plan.n_ubatch, 'token') : ''],
        ['CPU reads', plan.measured?.read_gbs ? `${plan.measured.read_gbs.toFixed(1)} GB/s` : ''],
    ]);
}

function deviceNode(d, hue) {
    const parts = [['weights', d.weight_bytes], ['KV cache', d.kv_bytes], ['buffers', d.buffer_bytes],
        ['streamed weights', d.stream_bytes]].filter(([, n]) => n > 0);
    const used = parts.reduce((sum, [, n]) => sum + n, 0);
    const room = Math.max(d.room_bytes ?? 0, used);
    const bar = element('div', 'bar', ...parts.map(([, n], i) => {
        const part = element('span', `part-${i}`);
        part.style.flexGrow = n / room;
        return part;
    }));
    const free = element('span', 'free');
    free.style.flexGrow = room ? 1 - used / room : 1;
    bar.append(free);
    bar.setAttribute('role', 'img');
    bar.setAttribute('aria-label', `${bytes(used)}${d.room_bytes ? ` of ${bytes(d.room_bytes)}` : ''} taken`);
    const node = element('section', 'device',
        element('h3', '', d.name, element('span', 'muted', ` ${plural(d.blocks, 'layer')}`)), bar,
        pairs('', [
            ...parts.map(([name, n]) => [name, bytes(n)]),
            ['may be taken', d.room_bytes ? bytes(d.room_bytes) : ''],
            ['read for a token', d.step_bytes ? bytes(d.step_bytes) : ''],
            ['memory', d.read_gbs ? `${count(d.read_gbs)} GB/s` : ''],
            ['link', d.link_gbs ? `${count(d.link_gbs)} GB/s` : ''],
        ]));
    node.style.setProperty('--hue', hue);
    return node;
}

function legend(places, table) {
    return element('div', 'legend', ...places.all.map((p) => {
        const b = button('', { onclick: () => table.choose(p) });
        b.append(paint(element('span', 'swatch'), p, places), element('strong', '', p.name),
            element('span', 'muted', ` ${plural(p.n, 'tensor')}, ${bytes(p.bytes)}`));
        b.setAttribute('aria-pressed', 'false');
        b.title = 'Only these in the table';
        table.chips.set(p, b);
        return b;
    }));
}

const layerOf = (name) => /^blk\.(\d{1,6})\./.exec(name)?.[1] ?? '';

function layers(weights, places, table) {
    const rows = new Map();
    for (const w of weights) {
        const layer = layerOf(w.name);
        if (!rows.has(layer)) rows.set(layer, []);
        rows.get(layer).push(w);
    }
    // Weights of no layer, the embedding and the output, first.
    const order = [...rows.keys()].sort((a, b) => (a === '' ? -1 : Number(a)) - (b === '' ? -1 : Number(b)));
    const sums = order.map((l) => rows.get(l).reduce((sum, w) => sum + w.bytes, 0));
    const largest = Math.max(1, ...sums.filter((_, i) => order[i] !== ''));
    return element('ol', 'layers', ...order.map((layer, i) => {
        const bar = element('span', 'bar');
        bar.style.width = layer === '' ? '100%' : `${Math.max(2, 100 * sums[i] / largest)}%`;
        const by = new Map();
        for (const w of rows.get(layer)) {
            const cell = paint(element('span', 'cell'), places.of(w), places);
            cell.style.flexGrow = Math.max(w.bytes / Math.max(1, sums[i]), 0.002);
            cell.title = `${w.name}: ${w.device} ${w.kernel_set}, ${w.type}, ${bytes(w.bytes)}`;
            bar.append(cell);
            const p = places.of(w).name;
            by.set(p, (by.get(p) ?? 0) + w.bytes);
        }
        const where = [...by].map(([p, n]) => `${p} ${bytes(n)}`).join(', ');
        const name = layer === '' ? 'in, out' : layer;
        const b = button('', { onclick: () => table.search(layer === '' ? '' : `blk.${layer}.`) });
        b.append(element('span', 'layer', name), element('span', 'room', bar),
            element('span', 'sum', bytes(sums[i])));
        b.setAttribute('aria-label', `${layer === '' ? 'Embedding and output' : `Layer ${layer}`}: ${where}`);
        return element('li', '', b);
    }));
}

/* The forward pass: who computes what in turn, and what is copied between. */
function wayOf(plan, places) {
    const segments = plan.segments ?? [];
    if (segments.length < 2) return [];
    const list = element('ol', 'way', ...segments.map((s) => {
        const swatch = element('span', 'swatch');
        swatch.style.setProperty('--hue', places.hue(s.device));
        const what = s.copy ? `copies ${s.copy} from ${s.from}, ${bytes(s.bytes)}`
            : `${plural(s.steps, 'step')}, reads ${bytes(s.bytes)}`;
        return element('li', s.copy ? 'copy' : '', swatch, element('strong', '', s.device), ` ${what}`);
    }));
    const copies = segments.filter((s) => s.copy).length;
    const sum = `${plural(segments.length - copies, 'part')}, ${plural(copies, 'copy', 'copies')}`;
    return [element('details', 'way-part', element('summary', '', `The way of a token: ${sum}`), list)];
}

const COLUMNS = [
    ['name', 'Tensor'], ['type', 'Type'], ['shape', 'Shape'], ['device', 'Device'], ['kernel_set', 'Kernels'],
    ['layout', 'Layout'], ['bytes', 'Bytes'], ['reason', 'Why'],
];

/* The table of tensors, with a filter: all words must be in a row. */
class Table {
    constructor(weights, places) {
        this.chips = new Map(); // place -> its button
        this.place = null;
        this.rows = weights.map((w) => this.row(w, places));
        this.field = element('input');
        Object.assign(this.field,
            { type: 'search', id: 'plan-find', placeholder: 'ffn CUDA0', autocomplete: 'off' });
        const label = element('label', '', 'Only rows with all these words');
        label.htmlFor = this.field.id;
        this.sum = element('p', 'muted');
        this.sum.setAttribute('aria-live', 'polite');
        this.field.addEventListener('input', () => this.filter());
        const head = element('tr', '', ...COLUMNS.map(([name, title]) => {
            const th = element('th', name === 'bytes' ? 'right' : '', title);
            th.scope = 'col';
            return th;
        }));
        const body = element('tbody');
        for (const { tr } of this.rows) body.append(tr);
        this.node = element('div', 'tensors', element('div', 'find', label, this.field), this.sum,
            element('table', '', element('thead', '', head), body));
        this.filter();
    }

    row(w, places) {
        const shown = { ...w, shape: (w.shape ?? []).join(' × '), bytes: bytes(w.bytes) };
        const tr = element('tr', '', ...COLUMNS.map(([name, title]) => {
            const td = element('td', name === 'bytes' ? 'right' : `col-${name}`, String(shown[name] ?? ''));
            td.dataset.title = title;
            return td;
        }));
        tr.querySelector('.col-device').prepend(paint(element('span', 'swatch'), places.of(w), places));
        const text = COLUMNS.map(([name]) => shown[name]).join(' ').toLowerCase();
        return { tr, text, bytes: w.bytes, place: places.of(w) };
    }

    filter() {
        const words = this.field.value.toLowerCase().split(/\s+/).filter((w) => w);
        let n = 0, sum = 0;
        for (const r of this.rows) {
            const ok = (!this.place || r.place === this.place) && words.every((w) => r.text.includes(w));
            r.tr.hidden = !ok;
            if (ok) {
                n++;
                sum += r.bytes;
            }
        }
        this.sum.textContent = `${plural(n, 'tensor')} of ${count(this.rows.length)}, ${bytes(sum)}`;
    }

    choose(place) {
        this.place = this.place === place ? null : place;
        for (const [p, b] of this.chips) b.setAttribute('aria-pressed', String(p === this.place));
        this.filter();
    }

    search(text) {
        this.field.value = text;
        this.filter();
        this.field.focus({ preventScroll: true });
        this.field.scrollIntoView({ block: 'start' });
    }
}
