import nbformat, sys, glob, re
for f in sorted(sys.argv[1:] or glob.glob('notebooks/*.ipynb')):
    nb=nbformat.read(f,4)
    md=[c for c in nb.cells if c.cell_type=='markdown']; code=[c for c in nb.cells if c.cell_type=='code']
    w=sum(len(c.source.split()) for c in md)
    print(f, 'md',len(md),'code',len(code),'words',w)
