/* dom.js - elements, icons and numbers, for all of the page. Text is always a text node. */

export function element(name, className, ...children) {
    const e = document.createElement(name);
    if (className) e.className = className;
    e.append(...children);
    return e;
}

/* A drawing of index.html's, named there. */
export function icon(name) {
    const ns = 'http://www.w3.org/2000/svg';
    const svg = document.createElementNS(ns, 'svg');
    const use = document.createElementNS(ns, 'use');
    use.setAttribute('href', `#i-${name}`);
    svg.setAttribute('aria-hidden', 'true');
    svg.classList.add('icon');
    svg.append(use);
    return svg;
}

/* A button; with an icon its label is read out and shown as a tip. */
export function button(label, { image, className = '', onclick, ...data } = {}) {
    const b = element('button', className);
    b.type = 'button';
    if (image) {
        b.append(icon(image));
        b.setAttribute('aria-label', label);
        b.title = label;
        b.classList.add('icon-button');
    } else {
        b.append(label);
    }
    Object.assign(b.dataset, data);
    if (onclick) b.addEventListener('click', onclick);
    return b;
}

export const byId = (id) => document.getElementById(id);

export function bytes(n) {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return `${i && n < 100 ? n.toFixed(n < 10 ? 2 : 1) : Math.round(n)} ${units[i]}`;
}

export const count = (n) => Math.round(n).toLocaleString('en');

export const speed = (n) => `${n >= 100 ? count(n) : n.toFixed(1)} tok/s`;

export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;

/* Storage of the browser's that may be refused or full: then what was kept is not there. `where` is a function,
 * as even to name the storage may throw. A value of null takes the key away. */
const storage = (where) => ({
    get(key) {
        try {
            return where().getItem(key);
        } catch {
            return null;
        }
    },
    set(key, value) {
        try {
            if (value === null) where().removeItem(key);
            else where().setItem(key, value);
            return true;
        } catch {
            return false;
        }
    },
});

export const local = storage(() => localStorage);
export const session = storage(() => sessionStorage);
