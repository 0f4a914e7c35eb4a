import sys,nbformat
nb=nbformat.read(sys.argv[1],4)
for i,c in enumerate(nb.cells):
    print(f"\n===== cell {i} ({c.cell_type}) =====\n{c.source}")
    if c.cell_type=='code':
        for o in c.outputs:
            if o.output_type=='stream': print('--- prints:\n'+o.text[:3000])
            elif 'data' in o:
                d=o.data
                if 'text/html' in d and 'application/vnd.plotly.v1+json' not in d:
                    import re,html; t=html.unescape(re.sub(r'<[^>]+>',' ',d['text/html'])); print('--- shows a table:\n'+re.sub(r'[ \t]+',' ',t)[:5000])
                elif 'image/png' in d: print('--- shows a figure')
                else: print('--- shows: '+str(d.get('text/plain'))[:300])
