import nbformat,sys
nb=nbformat.read(sys.argv[1],4)
lo,hi=(int(x) for x in (sys.argv[2:4] if len(sys.argv)>3 else (0,10**6)))
n=0
for i,c in enumerate(nb.cells):
    if c.cell_type=='code': n+=1
    if lo<=i<=hi:
        tags=c.metadata.get('tags',[])
        print(f"=== [{i}] {c.cell_type}{' #'+str(n) if c.cell_type=='code' else ''} {tags if tags else ''}")
        print(c.source)
        if c.cell_type=='code':
            for o in c.outputs:
                t=o.get('text') or (o.get('data') or {}).get('text/plain','')
                if isinstance(t,list): t=''.join(t)
                k=[x for x in (o.get('data') or {})]
                print('   >>', (t or '')[:300].replace('\n','\n   >> '), k)
