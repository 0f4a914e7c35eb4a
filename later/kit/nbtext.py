import sys,nbformat
nb=nbformat.read(sys.argv[1],4); out='-o' in sys.argv
for i,c in enumerate(nb.cells):
    print(f"--- [{i}] {c.cell_type} {','.join(c.metadata.get('tags',[]))}"); print(c.source)
    if out and c.cell_type=='code':
        for o in c.outputs:
            if o.output_type=='stream': print('>>>',o.text[:1200])
            elif 'data' in o:
                d=o.data
                print('>>>', [k for k in d], str(d.get('text/plain',''))[:300])
