// A field above every table with many rows: it keeps the rows that have all of its words, in any column.
for (const table of document.querySelectorAll(".md-typeset table")) {
  const rows = [...table.tBodies[0]?.rows ?? []];
  if (rows.length < 25) continue;
  const texts = rows.map(row => row.textContent.toLowerCase());
  const bar = document.createElement("div");
  bar.className = "filter";
  const field = Object.assign(document.createElement("input"), {
    type: "search", placeholder: "Filter rows by words of any column", ariaLabel: "Filter the rows of this table",
  });
  const count = document.createElement("output");
  const update = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every(word => texts[place].includes(word));
      shown += !row.hidden;
    });
    count.textContent = `${shown} of ${rows.length}`;
  };
  field.addEventListener("input", update);
  bar.append(field, count);
  (table.closest(".md-typeset__scrollwrap") ?? table).before(bar);
  update();
}
