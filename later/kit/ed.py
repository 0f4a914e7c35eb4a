import nbformat
from supertf.lab.book.executed import written
class Ed:
    """Edit a stored notebook by original cell index."""
    def __init__(self, name):
        self.path=f"notebooks/{name}.ipynb"; self.nb=nbformat.read(self.path,4); self.c=dict(enumerate(self.nb.cells)); self.order=list(self.c)
    def rep(self,i,*pairs):
        for a,b in pairs:
            n=self.c[i].source.count(a); assert n==1,(i,n,a[:80]); self.c[i].source=self.c[i].source.replace(a,b)
    def all(self,a,b,times=1):
        hit=[i for i in self.order if a in self.c[i].source]; assert len(hit)==times,(hit,a[:80])
        for i in hit: self.c[i].source=self.c[i].source.replace(a,b)
    def set(self,i,s): self.c[i].source=s.strip('\n')
    def drop(self,*ii):
        for i in ii: self.order.remove(i)
    def join(self,i,j,sep='\n'):
        self.c[i].source=self.c[i].source.rstrip('\n')+sep+self.c[j].source; self.c[i].outputs=list(self.c[i].get('outputs',[]))+list(self.c[j].get('outputs',[])) ; self.drop(j)
    def new(self,after,kind,s,key):
        c=nbformat.v4.new_code_cell(s.strip('\n')) if kind=='code' else nbformat.v4.new_markdown_cell(s.strip('\n'))
        self.c[key]=c; self.order.insert(self.order.index(after)+1,key)
    def move(self,i,after):
        self.order.remove(i); self.order.insert(self.order.index(after)+1,i)
    def save(self):
        self.nb.cells=[self.c[i] for i in self.order]
        print(self.path, sum(c.cell_type=='code' for c in self.nb.cells),'code',sum(c.cell_type!='code' for c in self.nb.cells),'md')
        open(self.path,'w').write(written(self.nb))
