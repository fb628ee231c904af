"""The report's script, which the page works without: values to point at, sortable tables, downloads.

The page's policy names its hash, and that of the style sheet, so that nothing else can run, not even if a
client's name were written into the page unescaped.
"""

import base64
import hashlib

SCRIPT = r"""
'use strict';
(() => {
  const tip = document.createElement('div');
  tip.className = 'tip'; tip.setAttribute('role', 'status'); tip.hidden = true;
  document.body.append(tip);

  const words = (mark) => {
    const title = mark.querySelector('title');
    if (title) { mark.dataset.tip = title.textContent; title.remove(); }
    return mark.dataset.tip;
  };
  let shown = null;
  function show(mark, x, y) {
    if (shown) shown.classList.remove('on');
    shown = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add('on');
    tip.textContent = words(mark);
    const right = Math.min(x + 12, document.documentElement.clientWidth - tip.offsetWidth - 4);
    tip.style.left = Math.max(4, right) + 'px';
    tip.style.top = (y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 10 : y + 16) + 'px';
  }
  for (const chart of document.querySelectorAll('.chart')) {
    const marks = [...chart.querySelectorAll('.m')];
    if (!marks.length) continue;
    let place = -1;
    chart.setAttribute('tabindex', '0');
    chart.setAttribute('aria-describedby', 'keys');
    chart.addEventListener('pointermove', (event) => {
      const mark = event.target.closest('.m');
      if (mark || shown) show(mark, event.clientX, event.clientY);
    });
    for (const name of ['pointerleave', 'blur']) chart.addEventListener(name, () => show(null));
    chart.addEventListener('keydown', (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (event.key === 'Escape') { place = -1; show(null); }
      if (!step) return;
      event.preventDefault();
      place = (place + step + marks.length + (place < 0 && step < 0 ? 1 : 0)) % marks.length;
      const box = marks[place].getBoundingClientRect();
      show(marks[place], box.left + box.width / 2, box.top);
    });
  }

  const units = {kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12};
  function value(cell) {
    const text = cell.textContent.trim().replace(/\u2212/g, '-').replace(/,(?=\d{3})/g, '');
    const found = /^[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i.exec(text);
    if (!found) return text;
    return parseFloat(found[0]) * (units[text.slice(found[0].length).trim()] || 1);
  }
  function compare(a, b) {
    const numbers = [typeof a === 'number', typeof b === 'number'];
    if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1;
    return numbers[0] ? a - b : a.localeCompare(b, undefined, {numeric: true});
  }
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    heads.forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const up = head.getAttribute('aria-sort') !== 'ascending';
        heads.forEach((other) => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        const missing = (cell) => cell.textContent.trim() === '\u2013';
        const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
        rows.sort(([a, first], [b, second]) => {
          const last = missing(first.cells[column]) - missing(second.cells[column]);
          return last || (up ? 1 : -1) * compare(a, b);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  function save(blob, name) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const plain = /^[=+@\t\r]|^-(?!\d)/;
  function field(cell) {
    let text = cell.textContent.trim().replace(/\u2212/g, '-').replace(/^\u2013$/, '');
    if (plain.test(text) && !/^[-+]\d/.test(text)) text = "'" + text;
    return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }
  const csv = (table) =>
    [...table.rows].map((row) => [...row.cells].map(field).join(',')).join('\r\n') + '\r\n';

  const KEPT = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linejoin',
    'paint-order', 'font-family', 'font-size', 'font-weight', 'text-anchor', 'image-rendering'];
  function picture(chart, then) {
    const copy = chart.cloneNode(true), copies = copy.querySelectorAll('*');
    [...chart.querySelectorAll('*')].forEach((element, place) => {
      const style = getComputedStyle(element);
      for (const key of KEPT) copies[place].setAttribute(key, style.getPropertyValue(key));
    });
    const {width, height} = chart.viewBox.baseVal;
    copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    copy.removeAttribute('class');
    copy.setAttribute('width', width); copy.setAttribute('height', height);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement('canvas');
      canvas.width = 2 * width; canvas.height = 2 * height;
      const context = canvas.getContext('2d');
      context.fillStyle = getComputedStyle(document.body).backgroundColor;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(then, 'image/png');
    };
    const text = new XMLSerializer().serializeToString(copy);
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(text);
  }
  const visible = (figure) => [...figure.querySelectorAll('.chart')].find((c) => c.getClientRects().length);
  for (const button of document.querySelectorAll('button[data-save]')) {
    button.hidden = false;
    button.addEventListener('click', () => {
      const name = button.dataset.name, kind = button.dataset.save;
      if (kind === 'png') picture(visible(button.closest('figure')), (blob) => save(blob, name + '.png'));
      const table = kind === 'csv' && document.getElementById(button.dataset.table);
      if (table) save(new Blob(['\ufeff' + csv(table)], {type: 'text/csv'}), name + '.csv');
    });
  }
})();
"""


def policy(style_sheet: str, script: str) -> str:
    """Return the page's content security policy: these two texts, pictures in the page, and nothing else.

    The tip's place is set by the script through the style object, which a policy does not concern.
    """
    return (
        f"default-src 'none'; style-src '{_hashed(style_sheet)}'; script-src '{_hashed(script)}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
